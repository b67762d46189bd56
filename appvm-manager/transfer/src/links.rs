//! Symbolic links: only those that stay inside of the copied folder.
//!
//! The rule looks at the text alone, and holds whatever other links there are: a target may begin
//! with `..`, as many as there are folders above the link, up to the folder at the top; after that
//! it only goes down. Leading `..` climb from the link's own folder, which is a real one. Going down
//! goes through real folders or through links that keep this rule too, so by induction it stays
//! inside. A `..` further right could climb from wherever a link before it leads to (`a/b/up/..`,
//! where `up` leads to the top), so it is refused.

use crate::format::MAX_TARGET;
use crate::names::{self, NameFault};

/// Why a link is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkFault {
    /// It has no target.
    #[error("it leads nowhere")]
    Empty,
    /// It begins with a slash.
    #[error("its target begins at the root")]
    Absolute,
    /// It is not in a folder that is copied too.
    #[error("it is not inside of a copied folder")]
    AtTop,
    /// It climbs too far.
    #[error("its target is outside of the copied folder")]
    Outside,
    /// It climbs after it went down.
    #[error(
        "its target climbs (`..`) after it went down, so where it leads depends on other links"
    )]
    Climbs,
    /// Its target is too long.
    #[error("its target is longer than 4095 bytes")]
    TooLong,
    /// A part of its target is no name.
    #[error("in its target a name is none: {0}")]
    Name(NameFault),
}

/// Checks the target of a link which has so many copied folders above it (1: it is directly in a
/// folder at the top), and gives it as it is stored: with visible names, as [`names::stored`] makes
/// them, so that it leads to what it led to.
pub fn stored(untrusted_target: &[u8], folders_above: usize) -> Result<String, LinkFault> {
    let mut climbable = folders_above.checked_sub(1).ok_or(LinkFault::AtTop)?;
    if untrusted_target.is_empty() {
        return Err(LinkFault::Empty);
    }
    if untrusted_target.first() == Some(&b'/') {
        return Err(LinkFault::Absolute);
    }
    if untrusted_target.len() > MAX_TARGET {
        return Err(LinkFault::TooLong);
    }
    let mut went_down = false;
    let mut target = String::with_capacity(untrusted_target.len());
    for (number, untrusted_part) in untrusted_target.split(|byte| *byte == b'/').enumerate() {
        if number > 0 {
            target.push('/');
        }
        match untrusted_part {
            b"" => {}
            b"." => target.push('.'),
            b".." if went_down => return Err(LinkFault::Climbs),
            b".." => {
                climbable = climbable.checked_sub(1).ok_or(LinkFault::Outside)?;
                target.push_str("..");
            }
            name => {
                went_down = true;
                target.push_str(&names::stored(name).map_err(LinkFault::Name)?);
            }
        }
    }
    if target.len() > MAX_TARGET {
        return Err(LinkFault::TooLong);
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stays_inside_is_made() {
        for (target, above) in [
            ("b", 1),
            ("./b", 1),
            ("b/c/", 1),
            ("../b", 2),
            ("../../b//c", 3),
            ("..", 2),
            (".", 1),
            ("...", 1),
        ] {
            assert_eq!(stored(target.as_bytes(), above).as_deref(), Ok(target));
        }
        assert_eq!(stored(b"", 1), Err(LinkFault::Empty));
        assert_eq!(stored(b"/etc/passwd", 5), Err(LinkFault::Absolute));
        assert_eq!(stored(b"b", 0), Err(LinkFault::AtTop));
        assert_eq!(stored(b"..", 1), Err(LinkFault::Outside));
        assert_eq!(stored(b"./../b", 1), Err(LinkFault::Outside));
        assert_eq!(stored(b"../../../b", 3), Err(LinkFault::Outside));
        assert_eq!(stored(b"a/b/up/..", 3), Err(LinkFault::Climbs));
        assert_eq!(stored(b"a/../b", 3), Err(LinkFault::Climbs));
        assert_eq!(stored(b"a\0b", 3), Err(LinkFault::Name(NameFault::Zero)));
        assert_eq!(stored(&b"a/".repeat(2048), 1), Err(LinkFault::TooLong));
        assert_eq!(stored(b"a\nb/c", 1).as_deref(), Ok("a\\x0ab/c"));
    }
}

//! What the user wants an output to be: `--output NAME=WIDTHxHEIGHT[@HZ][*SCALE]`.

/// The largest scale; more makes no sense on any screen.
pub const MAX_SCALE: i32 = 4;

/// What the user wants of one output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputWish {
    /// The connector's name, as in the log: `eDP-1`, `HDMI-A-2`, `Virtual-1`.
    pub name: String,
    /// Width and height in the output's own pixels; none: what the output prefers.
    pub size: Option<(u16, u16)>,
    /// Refreshes in a second; none: the most that the size has.
    pub hertz: Option<u32>,
    /// Pixels of the output in each direction to one of the desktop, 1 to [`MAX_SCALE`].
    pub scale: i32,
}

/// What is wrong with an `--output`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "'{0}' is not an output; write NAME=WIDTHxHEIGHT, NAME=WIDTHxHEIGHT@HZ, NAME=*SCALE or all of \
     it, like eDP-1=1920x1080@60*2 (the scale is 1 to {MAX_SCALE})"
)]
pub struct WrongOutput(String);

impl std::str::FromStr for OutputWish {
    type Err = WrongOutput;

    fn from_str(text: &str) -> Result<Self, WrongOutput> {
        parse(text).ok_or_else(|| WrongOutput(text.into()))
    }
}

fn parse(text: &str) -> Option<OutputWish> {
    let (name, rest) = text.split_once('=')?;
    let (mode, scale) = match rest.split_once('*') {
        Some((mode, scale)) => (mode, scale.parse().ok()?),
        None => (rest, 1),
    };
    let (size, hertz) = match mode.split_once('@') {
        Some((size, hertz)) => (size, Some(hertz.parse().ok()?)),
        None => (mode, None),
    };
    let size = if size.is_empty() && hertz.is_none() && mode.len() != rest.len() {
        None
    } else {
        let (w, h) = size.split_once('x')?;
        Some((w.parse().ok()?, h.parse().ok()?))
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let named = !name.is_empty() && name.chars().all(plain);
    let sane = (1..=MAX_SCALE).contains(&scale)
        && size.is_none_or(|(w, h)| w >= 64 && h >= 64)
        && hertz.is_none_or(|hertz| (1..=1000).contains(&hertz));
    (named && sane).then(|| OutputWish {
        name: name.into(),
        size,
        hertz,
        scale,
    })
}

/// A mode that an output has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeInfo {
    /// Width and height in pixels.
    pub size: (u16, u16),
    /// Refreshes in a second.
    pub hertz: u32,
    /// The output likes this one best.
    pub preferred: bool,
}

/// Picks a mode by its number, and says whether it is what was wished for.
pub fn pick_mode(modes: &[ModeInfo], wish: Option<&OutputWish>) -> Option<(usize, bool)> {
    let size = wish.and_then(|w| w.size);
    let hertz = wish.and_then(|w| w.hertz);
    let wished = size.and_then(|size| {
        let of_size = modes.iter().enumerate().filter(|(_, m)| m.size == size);
        match hertz {
            // Modes of 59.94 Hz call themselves 59 or 60.
            Some(hertz) => of_size
                .filter(|(_, m)| m.hertz.abs_diff(hertz) <= 1)
                .min_by_key(|(_, m)| m.hertz.abs_diff(hertz)),
            None => of_size.max_by_key(|(_, m)| (m.preferred, m.hertz)),
        }
    });
    if let Some((index, _)) = wished {
        return Some((index, true));
    }
    let own = modes.iter().position(|m| m.preferred);
    let index = own.or_else(|| (!modes.is_empty()).then_some(0))?;
    Some((index, size.is_none()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(text: &str) -> OutputWish {
        text.parse().unwrap()
    }

    #[test]
    fn outputs_are_read_or_refused() {
        let all = wish("HDMI-A-1=1920x1080@60*2");
        assert_eq!(all.name, "HDMI-A-1");
        assert_eq!(
            (all.size, all.hertz, all.scale),
            (Some((1920, 1080)), Some(60), 2)
        );
        let plain = wish("Virtual-1=800x600");
        assert_eq!(
            (plain.size, plain.hertz, plain.scale),
            (Some((800, 600)), None, 1)
        );
        assert_eq!(wish("eDP-1=*2").size, None);
        for bad in [
            "",
            "x",
            "=800x600",
            "a=",
            "a=800",
            "a=800x",
            "a=0x600",
            "a=800x600@",
            "a=800x600@0",
            "a=800x600*0",
            "a=800x600*5",
            "a=800x600*1.5",
            "a=@60",
            "a=@60*2",
            "a b=800x600",
            "a=99999x600",
            "a=*",
            "a=-800x600",
        ] {
            assert!(bad.parse::<OutputWish>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_wished_mode_is_picked_or_else_the_preferred_one() {
        let mode = |w, h, hertz, preferred| ModeInfo {
            size: (w, h),
            hertz,
            preferred,
        };
        let modes = [
            mode(800, 600, 60, false),
            mode(1280, 800, 60, true),
            mode(800, 600, 75, false),
        ];
        assert_eq!(pick_mode(&modes, None), Some((1, true)));
        let pick = |text: &str| pick_mode(&modes, Some(&wish(text)));
        assert_eq!(pick("a=800x600"), Some((2, true)));
        assert_eq!(pick("a=800x600@59"), Some((0, true)));
        assert_eq!(pick("a=800x600@50"), Some((1, false)));
        assert_eq!(pick("a=640x480"), Some((1, false)));
        assert_eq!(pick("a=*2"), Some((1, true)));
        assert_eq!(pick_mode(&modes[..1], None), Some((0, true)));
        assert_eq!(pick_mode(&[], None), None);
    }
}

//! Who reaches the network through whom: which settings can be.

use std::collections::BTreeMap;

use bulkhead_protocol::DomainName;

use crate::config::DomainConfig;

/// What counts of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Whether others may be behind it.
    pub provides: bool,
    /// Behind whom it is.
    pub net_domain: Option<DomainName>,
}

impl From<&DomainConfig> for Node {
    fn from(config: &DomainConfig) -> Self {
        Node {
            provides: config.provides_network,
            net_domain: config.net_domain.clone(),
        }
    }
}

/// All domains.
pub type Graph = BTreeMap<DomainName, Node>;

/// Why settings cannot be so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// The network domain is not there.
    #[error("net_domain of `{of}`: there is no domain `{net}`; make it first, or name another one")]
    Missing {
        /// Whose setting.
        of: DomainName,
        /// What it says.
        net: DomainName,
    },
    /// It is no network domain.
    #[error(
        "net_domain of `{of}`: domain `{net}` does not provide network; name another one, or say \
         `bulkhead prefs {net} provides_network yes`"
    )]
    NoProvider {
        /// Whose setting.
        of: DomainName,
        /// What it says.
        net: DomainName,
    },
    /// It would be behind itself.
    #[error("net_domain of `{0}`: it would be behind itself ({way}); name another one", way = .1)]
    Loop(DomainName, String),
    /// Others are behind it.
    #[error("domain `{net}` is the net_domain of {users}; change that first with `bulkhead prefs`")]
    InUse {
        /// The network domain.
        net: DomainName,
        /// Who is behind it.
        users: String,
    },
}

/// Whether the domains `changed` can be as `all` says. What others say is not theirs to answer for.
pub fn check(all: &Graph, changed: &[DomainName]) -> Result<(), GraphError> {
    for name in changed {
        let Some(node) = all.get(name) else { continue };
        if !node.provides {
            check_unused(all, name)?;
        }
        way(all, name)?;
    }
    Ok(())
}

/// Fails where somebody is behind a domain.
pub fn check_unused(all: &Graph, name: &DomainName) -> Result<(), GraphError> {
    let users: Vec<String> = all
        .iter()
        .filter(|(other, node)| *other != name && node.net_domain.as_ref() == Some(name))
        .map(|(other, _)| format!("`{other}`"))
        .collect();
    match users.is_empty() {
        true => Ok(()),
        false => Err(GraphError::InUse {
            net: name.clone(),
            users: users.join(", "),
        }),
    }
}

/// The network domains that a domain is behind, the nearest first.
pub fn way<'a>(all: &'a Graph, name: &'a DomainName) -> Result<Vec<&'a DomainName>, GraphError> {
    let mut way = vec![];
    let mut last = name;
    while let Some(net) = all.get(last).and_then(|node| node.net_domain.as_ref()) {
        if net == name || way.contains(&net) {
            let names: Vec<String> = [name]
                .into_iter()
                .chain(way)
                .chain([net])
                .map(ToString::to_string)
                .collect();
            return Err(GraphError::Loop(name.clone(), names.join(" → ")));
        }
        let (of, net_name) = (last.clone(), net.clone());
        match all.get(net) {
            None => return Err(GraphError::Missing { of, net: net_name }),
            Some(node) if !node.provides => {
                return Err(GraphError::NoProvider { of, net: net_name });
            }
            Some(_) => {}
        }
        way.push(net);
        last = net;
    }
    Ok(way)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DomainName {
        text.parse().unwrap()
    }

    /// Names, whether they provide, behind whom.
    fn graph(nodes: &[(&str, bool, &str)]) -> Graph {
        let node = |(domain, provides, net): &(&str, bool, &str)| {
            let net_domain = (!net.is_empty()).then(|| name(net));
            let provides = *provides;
            (
                name(domain),
                Node {
                    provides,
                    net_domain,
                },
            )
        };
        nodes.iter().map(node).collect()
    }

    #[test]
    fn chains_are_possible() {
        let all = graph(&[
            ("net", true, ""),
            ("firewall", true, "net"),
            ("work", false, "firewall"),
            ("alone", false, ""),
        ]);
        let names: Vec<_> = all.keys().cloned().collect();
        assert_eq!(check(&all, &names), Ok(()));
        assert_eq!(
            way(&all, &name("work")).unwrap(),
            [&name("firewall"), &name("net")]
        );
        assert!(way(&all, &name("alone")).unwrap().is_empty());
        assert!(check_unused(&all, &name("work")).is_ok());
    }

    #[test]
    fn what_cannot_be_is_said() {
        for (nodes, changed, expected) in [
            (&[("a", false, "x")][..], "a", "there is no domain `x`"),
            (
                &[("a", false, "x"), ("x", false, "")],
                "a",
                "`x` does not provide network",
            ),
            (&[("a", true, "a")], "a", "behind itself (a → a)"),
            (
                &[("a", true, "b"), ("b", true, "c"), ("c", true, "a")],
                "b",
                "behind itself (b → c → a → b)",
            ),
            // A loop further on that it is not part of.
            (
                &[("w", false, "a"), ("a", true, "b"), ("b", true, "a")],
                "w",
                "behind itself (w → a → b → a)",
            ),
            (
                &[("x", false, ""), ("a", false, "x"), ("b", false, "x")],
                "x",
                "is the net_domain of `a`, `b`",
            ),
        ] {
            let all = graph(nodes);
            let error = check(&all, &[name(changed)]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn what_was_wrong_before_is_not_in_the_way_of_others() {
        let all = graph(&[("a", false, "gone"), ("b", false, "")]);
        assert_eq!(check(&all, &[name("b")]), Ok(()));
    }
}

//! A domain's rules, one at a time. As a whole they are settings like others.

use std::sync::Arc;

use bulkhead_net::rules::{Policy, Rule};
use bulkhead_protocol::DomainName;

use crate::manager::Manager;
use crate::settings::{self, FIREWALL, Setting};
use crate::{Error, Result};

impl Manager {
    /// What a domain may reach, by its settings.
    pub fn firewall(&self, name: &DomainName) -> Result<Policy> {
        Ok(self.store.load(name)?.firewall())
    }

    /// Through whom it reaches it, by its settings.
    pub fn net_domain(&self, name: &DomainName) -> Result<Option<DomainName>> {
        Ok(self.store.load(name)?.net_domain)
    }

    /// Adds a rule before another one (their numbers begin at 1), or behind all. Rules that have
    /// ended are removed; gives the number of the new one.
    pub fn add_firewall_rule(
        self: &Arc<Self>,
        name: &DomainName,
        text: &str,
        before: Option<usize>,
    ) -> Result<usize> {
        let now = settings::now();
        let rule = settings::rule(text, now)?;
        let mut rules = self.firewall(name)?.rules;
        let mut place = match before {
            None => rules.len(),
            Some(number) => place(&rules, name, number)?,
        };
        let ended = |rule: &&Rule| rule.has_ended(now);
        place -= rules.iter().take(place).filter(ended).count();
        rules.retain(|rule| !rule.has_ended(now));
        rules.insert(place, rule);
        self.set_firewall_rules(name, &rules)?;
        Ok(place + 1)
    }

    /// Removes rules by their numbers, which begin at 1.
    pub fn remove_firewall_rules(
        self: &Arc<Self>,
        name: &DomainName,
        numbers: &[usize],
    ) -> Result<()> {
        let rules = self.firewall(name)?.rules;
        let mut places = Vec::new();
        for number in numbers {
            places.push(place(&rules, name, *number)?);
        }
        let kept = rules.iter().enumerate();
        let kept = kept.filter(|(place, _)| !places.contains(place));
        let kept: Vec<Rule> = kept.map(|(_, rule)| rule.clone()).collect();
        self.set_firewall_rules(name, &kept)
    }

    fn set_firewall_rules(self: &Arc<Self>, name: &DomainName, rules: &[Rule]) -> Result<()> {
        let texts = rules.iter().map(ToString::to_string).collect();
        let change = (FIREWALL.to_owned(), Setting::List(texts));
        self.change_settings(name, [change]).map(drop)
    }
}

/// Where the rule of this number is.
fn place(rules: &[Rule], name: &DomainName, number: usize) -> Result<usize> {
    number
        .checked_sub(1)
        .filter(|place| *place < rules.len())
        .ok_or_else(|| {
            Error::Setting(format!(
                "`{name}` has no rule {number}; it has {}, see `bulkhead firewall {name}`",
                rules.len()
            ))
        })
}

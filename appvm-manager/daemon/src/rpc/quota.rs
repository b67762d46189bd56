//! How many disposables may live because of calls: each costs the host a machine's memory.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use bulkhead_policy::Name;

/// Of one caller.
const OF_ONE: usize = 4;
/// Of all callers together: a disposable may call for further ones.
const OF_ALL: usize = 16;

/// A place; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place(#[allow(dead_code)] Arc<()>);

/// The places that are taken.
#[derive(Debug, Default)]
pub(crate) struct Quota(Mutex<Vec<(Name, Weak<()>)>>);

impl Quota {
    /// A place for a disposable that `source` calls for, if there is one.
    pub(crate) fn take(&self, source: &Name) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.retain(|(_, place)| place.strong_count() > 0);
        let own = taken.iter().filter(|(name, _)| name == source).count();
        if own >= OF_ONE || taken.len() >= OF_ALL {
            return None;
        }
        let place = Arc::new(());
        taken.push((source.clone(), Arc::downgrade(&place)));
        Some(Place(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_few_places_and_all_together_have_an_end() {
        let quota = Quota::default();
        let name = |number: usize| -> Name { format!("d{number}").parse().unwrap() };
        let mut places: Vec<Place> = (0..OF_ONE).filter_map(|_| quota.take(&name(0))).collect();
        assert_eq!(places.len(), OF_ONE);
        assert!(quota.take(&name(0)).is_none());
        places.extend((1..100).filter_map(|number| quota.take(&name(number))));
        assert_eq!(places.len(), OF_ALL);
        places.clear();
        assert!(quota.take(&name(0)).is_some());
    }
}

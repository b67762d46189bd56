//! Loads the kernel modules that the builder put into the initramfs, in its order.

use std::fs;

use crate::screen::note;

const LIST: &str = "/etc/bulkhead/modules";

/// Loads every module of the list. One that does not load is no error here: what is really needed
/// is missed at a later step, by name.
pub fn load_all() {
    let list = fs::read_to_string(LIST).unwrap_or_default();
    for path in list.lines() {
        let loaded =
            fs::read(path).and_then(|module| Ok(rustix::system::init_module(&module, c"")?));
        if let Err(error) = loaded {
            note(&format!("module {path}: {error}"));
        }
    }
}

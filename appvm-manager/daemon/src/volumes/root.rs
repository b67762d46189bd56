//! The root that a standalone domain owns: `root/` in its folder, a copy of the template that it
//! was made from. What the domain changes of it lies with its home, in one volume, so that a
//! snapshot, a copy and a way back are of both at once. The guest lays the one over the other;
//! the host looks into neither.

use std::path::{Path, PathBuf};

use bulkhead_protocol::DomainName;

use crate::config::DomainConfig;
use crate::store::Store;
use crate::{Error, Result, templates};

/// The copy of the template, in the domain's folder.
const ROOT: &str = "root";

/// Copies a template's folder, or another standalone domain's root, into a new domain's folder.
pub(crate) fn copy(from: &Path, data: &Path, config: &DomainConfig) -> Result<()> {
    templates::copy(from, &data.join(ROOT), &config.template)
}

impl Store {
    /// The folder of a domain's own root, laid out like a template's; none where the domain has
    /// its template's.
    pub fn own_root(&self, config: &DomainConfig) -> Option<PathBuf> {
        let owns = config.kind.owns_root();
        owns.then(|| self.root_dir(&config.name))
    }

    /// Where a standalone domain's root lies.
    pub(crate) fn root_dir(&self, name: &DomainName) -> PathBuf {
        self.data_dir(name).join(ROOT)
    }
}

/// What a new domain's own root is copied from, where it has one.
pub(crate) fn source<'a>(
    config: &DomainConfig,
    template: Option<&'a Path>,
) -> Result<Option<&'a Path>> {
    match (config.kind.owns_root(), template) {
        (false, _) => Ok(None),
        (true, Some(template)) => Ok(Some(template)),
        (true, None) => Err(Error::Template(format!(
            "there is no template `{}` that the domain's own root could be copied from",
            config.template
        ))),
    }
}

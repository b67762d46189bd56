//! Domains that start with the manager, one after another: several at once would only slow each
//! other down.

use std::sync::Arc;

use crate::manager::Manager;

impl Manager {
    /// Starts every domain that its file says so of. One that cannot start keeps no other from it;
    /// its state says why.
    pub(crate) async fn autostart(self: Arc<Self>) {
        let names = self.store.names().unwrap_or_default();
        for name in names {
            // A file that is wrong is told of wherever domains are listed.
            if !self.store.load(&name).is_ok_and(|config| config.autostart) {
                continue;
            }
            match self.ensure_running(&name).await {
                Ok(_) => tracing::info!(domain = %name, "started with the manager"),
                Err(error) => {
                    tracing::error!(domain = %name, %error, "did not start with the manager");
                }
            }
        }
    }
}

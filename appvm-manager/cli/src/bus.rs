//! The manager, as it is seen over D-Bus.

use std::collections::HashMap;

use zbus::{Fd, OwnedFd, OwnedVariant};

use crate::error::Error;

/// `a{sv}`.
pub type Dict = HashMap<String, OwnedVariant>;

#[zbus::proxy(
    interface = "org.bulkhead.Manager1",
    default_service = "org.bulkhead.Manager",
    default_path = "/org/bulkhead/Manager"
)]
pub trait Manager {
    fn create_domain(&self, name: &str, settings: Dict) -> zbus::Result<()>;
    fn remove_domain(&self, name: &str) -> zbus::Result<()>;
    fn list_domains(&self) -> zbus::Result<Vec<Dict>>;
    fn get_domain(&self, name: &str) -> zbus::Result<Dict>;
    fn start_domain(&self, name: &str) -> zbus::Result<()>;
    fn stop_domain(&self, name: &str, timeout_ms: u32) -> zbus::Result<()>;
    fn force_stop_domain(&self, name: &str, timeout_ms: u32) -> zbus::Result<()>;
    fn kill_domain(&self, name: &str) -> zbus::Result<()>;
    #[allow(clippy::too_many_arguments)]
    fn exec(
        &self,
        name: &str,
        argv: Vec<String>,
        options: Dict,
        stdin: Fd<'_>,
        stdout: Fd<'_>,
        stderr: Fd<'_>,
    ) -> zbus::Result<(i32, String, u64)>;
    fn signal_command(&self, token: &str, signal: u8) -> zbus::Result<()>;
    fn resize_command(&self, token: &str, columns: u16, rows: u16) -> zbus::Result<()>;
    fn open_console(&self, name: &str) -> zbus::Result<OwnedFd>;
    fn open_log(&self, name: &str, log: &str) -> zbus::Result<OwnedFd>;
    fn list_applications(&self) -> zbus::Result<Vec<Dict>>;
    fn launch_application(&self, domain: &str, app: &str, options: Dict) -> zbus::Result<String>;
    fn list_windows(&self) -> zbus::Result<Vec<Dict>>;
    fn activate_window(&self, id: u64) -> zbus::Result<()>;
    fn close_window(&self, id: u64) -> zbus::Result<()>;
    fn power_off(&self) -> zbus::Result<()>;
    fn reboot(&self) -> zbus::Result<()>;
    fn list_templates(&self) -> zbus::Result<Vec<Dict>>;
    fn import_template(&self, path: &str, options: Dict) -> zbus::Result<String>;
    fn remove_template(&self, name: &str) -> zbus::Result<()>;
    fn get_timings(&self, name: &str) -> zbus::Result<HashMap<String, u64>>;

    #[zbus(signal)]
    fn window_mapped(&self, domain: &str, id: u64, title: &str, time_us: u64);
}

#[zbus::proxy(
    interface = "org.bulkhead.Calls1",
    default_service = "org.bulkhead.Manager",
    default_path = "/org/bulkhead/Manager"
)]
pub trait Calls {
    fn list_asks(&self) -> zbus::Result<Vec<Dict>>;
    fn allow_ask(&self, id: u64, target: &str) -> zbus::Result<()>;
    fn deny_ask(&self, id: u64) -> zbus::Result<()>;
    fn list_calls(&self, most: u32) -> zbus::Result<Vec<Dict>>;
    #[allow(clippy::too_many_arguments)]
    fn connect_domains(
        &self,
        source: &str,
        target: &str,
        port: u16,
        options: Dict,
        stdout: Fd<'_>,
        stderr: Fd<'_>,
    ) -> zbus::Result<(i32, String)>;
}

/// A connection to what the manager knows of calls between domains.
pub async fn calls() -> Result<CallsProxy<'static>, Error> {
    let connection = zbus::Connection::session().await.map_err(Error::NoBus)?;
    Ok(CallsProxy::new(&connection).await?)
}

#[zbus::proxy(
    interface = "org.bulkhead.Domains1",
    default_service = "org.bulkhead.Manager",
    default_path = "/org/bulkhead/Manager"
)]
pub trait Domains {
    fn clone_domain(&self, old: &str, new: &str) -> zbus::Result<()>;
    fn rename_domain(&self, old: &str, new: &str) -> zbus::Result<()>;
    fn get_settings(&self, name: &str) -> zbus::Result<Dict>;
    fn set_settings(&self, name: &str, settings: Dict) -> zbus::Result<Dict>;
    fn list_snapshots(&self, name: &str) -> zbus::Result<Vec<Dict>>;
    fn revert_domain(&self, name: &str, number: u32) -> zbus::Result<u32>;
    fn plan(&self, files: &[(String, String)], options: Dict) -> zbus::Result<(String, Vec<Dict>)>;
    fn apply(&self, files: &[(String, String)], options: Dict, id: &str)
    -> zbus::Result<Vec<Dict>>;
}

/// A connection to what the manager does with domains that do not run.
pub async fn domains() -> Result<DomainsProxy<'static>, Error> {
    let connection = zbus::Connection::session().await.map_err(Error::NoBus)?;
    let proxy = DomainsProxy::builder(&connection)
        .cache_properties(zbus::proxy::CacheProperties::No)
        .build()
        .await?;
    Ok(proxy)
}

#[zbus::proxy(
    interface = "org.bulkhead.Network1",
    default_service = "org.bulkhead.Manager",
    default_path = "/org/bulkhead/Manager"
)]
pub trait Network {
    fn list_ports(&self) -> zbus::Result<Vec<Dict>>;
    fn list_physical_cards(&self) -> zbus::Result<Vec<Dict>>;
    fn list_wifi(&self, name: &str, scan: bool) -> zbus::Result<(Dict, Vec<Dict>)>;
    fn connect_wifi(
        &self,
        name: &str,
        ssid: &str,
        passphrase: &str,
    ) -> zbus::Result<(Dict, Vec<Dict>)>;
    fn disconnect_wifi(&self, name: &str) -> zbus::Result<(Dict, Vec<Dict>)>;
    fn forget_wifi(&self, name: &str, ssid: &str) -> zbus::Result<(Dict, Vec<Dict>)>;
    fn get_firewall(&self, name: &str) -> zbus::Result<(Vec<Dict>, Dict)>;
    fn settle_firewall(&self, name: &str) -> zbus::Result<(String, String)>;
    fn add_firewall_rule(&self, name: &str, rule: &str, before: u32) -> zbus::Result<u32>;
    fn remove_firewall_rules(&self, name: &str, numbers: &[u32]) -> zbus::Result<()>;
}

/// A connection to what the manager knows of the network.
pub async fn network() -> Result<NetworkProxy<'static>, Error> {
    let connection = zbus::Connection::session().await.map_err(Error::NoBus)?;
    Ok(NetworkProxy::new(&connection).await?)
}

/// A connection to the manager.
pub async fn manager() -> Result<ManagerProxy<'static>, Error> {
    let connection = zbus::Connection::session().await.map_err(Error::NoBus)?;
    let proxy = ManagerProxy::builder(&connection)
        .cache_properties(zbus::proxy::CacheProperties::No)
        .build()
        .await?;
    Ok(proxy)
}

//! The manager's D-Bus interface, as far as it is used here.

use super::types::Dict;

#[zbus::proxy(
    interface = "org.bulkhead.Manager1",
    default_service = "org.bulkhead.Manager",
    default_path = "/org/bulkhead/Manager"
)]
pub trait Manager {
    fn list_domains(&self) -> zbus::Result<Vec<Dict>>;
    fn list_windows(&self) -> zbus::Result<Vec<Dict>>;
    fn list_applications(&self) -> zbus::Result<Vec<Dict>>;
    fn get_icon(&self, icon: &str) -> zbus::Result<(u16, u16, Vec<u8>)>;
    fn launch_application(&self, domain: &str, app: &str, options: Dict) -> zbus::Result<String>;
    fn activate_window(&self, id: u64) -> zbus::Result<()>;
    fn close_window(&self, id: u64) -> zbus::Result<()>;
    fn stop_domain(&self, name: &str, timeout_ms: u32) -> zbus::Result<()>;
    fn kill_domain(&self, name: &str) -> zbus::Result<()>;
    fn power_off(&self) -> zbus::Result<()>;
    fn reboot(&self) -> zbus::Result<()>;
    fn request_menu(&self) -> zbus::Result<()>;
    fn copy_across(&self) -> zbus::Result<()>;
    fn paste_across(&self) -> zbus::Result<()>;

    #[zbus(signal)]
    fn domain_state_changed(&self, name: &str, state: &str, detail: &str);
    #[zbus(signal)]
    fn domain_added(&self, name: &str);
    #[zbus(signal)]
    fn domain_removed(&self, name: &str);
    #[zbus(signal)]
    fn applications_changed(&self);
    #[zbus(signal)]
    fn windows_changed(&self);
    #[zbus(signal)]
    fn focus_changed(&self, id: u64, domain: &str, label: &str, colour: &str, title: &str);
    #[zbus(signal)]
    fn menu_requested(&self, time_us: u64);
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

    #[zbus(signal)]
    fn ask_opened(&self, id: u64);
    #[zbus(signal)]
    fn ask_closed(&self, id: u64);
    #[zbus(signal)]
    fn call_ended(&self, notice: &str);
}

//! iwd's words: what it offers on the system's bus, and the passphrase that it asks for.

use std::collections::HashMap;

use zbus::{Connection, OwnedObjectPath, OwnedVariant, Variant};

use super::BUS_SOCKET;

/// iwd's name on the bus; its interfaces begin with it.
pub const IWD: &str = "net.connman.iwd";
/// Where we answer iwd.
const AGENT: &str = "/org/bulkhead/agent";

/// Everything that iwd offers: each object's interfaces and their properties.
pub type Objects = HashMap<OwnedObjectPath, HashMap<String, Properties>>;
/// The properties of one interface.
pub type Properties = HashMap<String, OwnedVariant>;

/// iwd, as it is asked.
pub struct Iwd {
    connection: Connection,
}

impl Iwd {
    /// Over the system's bus.
    pub async fn open() -> zbus::Result<Self> {
        let address = format!("unix:path={BUS_SOCKET}");
        let builder = zbus::connection::Builder::address(address.as_str());
        let connection = builder.build().await?;
        Ok(Iwd { connection })
    }

    /// Everything that it offers now.
    pub async fn objects(&self) -> zbus::Result<Objects> {
        let manager = Some("org.freedesktop.DBus.ObjectManager");
        let answer = self
            .connection
            .call_method(Some(IWD), "/", manager, "GetManagedObjects", &())
            .await?;
        answer.body().deserialize()
    }

    /// The networks in reach by their objects, the strongest first, in hundredths of dBm.
    pub async fn in_reach(&self, station: &str) -> zbus::Result<Vec<(OwnedObjectPath, i16)>> {
        let answer = self.call(station, "Station", "GetOrderedNetworks").await?;
        answer.body().deserialize()
    }

    /// Calls a method without arguments.
    pub async fn call(
        &self,
        object: &str,
        interface: &str,
        method: &str,
    ) -> zbus::Result<zbus::Message> {
        let interface = format!("{IWD}.{interface}");
        self.connection
            .call_method(Some(IWD), object, Some(interface), method, &())
            .await
    }

    /// Sets a property that is true or false.
    pub async fn set(
        &self,
        object: &str,
        interface: &str,
        name: &str,
        value: bool,
    ) -> zbus::Result<()> {
        let body = (format!("{IWD}.{interface}"), name, Variant::from(value));
        let properties = Some("org.freedesktop.DBus.Properties");
        self.connection
            .call_method(Some(IWD), object, properties, "Set", &body)
            .await
            .map(drop)
    }

    /// Answers iwd with this passphrase when it asks for one.
    pub async fn answer_with(&self, passphrase: Option<String>) -> zbus::Result<()> {
        let server = self.connection.object_server();
        server.at(AGENT, Agent { passphrase }).await?;
        let interface = format!("{IWD}.AgentManager");
        let path = OwnedObjectPath::try_from(AGENT)?;
        self.connection
            .call_method(
                Some(IWD),
                "/net/connman/iwd",
                Some(interface),
                "RegisterAgent",
                &path,
            )
            .await
            .map(drop)
    }
}

/// What iwd asks while it joins a network.
struct Agent {
    passphrase: Option<String>,
}

/// Why iwd gets no passphrase.
#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "net.connman.iwd.Agent.Error")]
enum NoPassphrase {
    Canceled(String),
}

#[zbus::interface(name = "net.connman.iwd.Agent")]
impl Agent {
    async fn release(&self) {}

    async fn cancel(&self, _reason: &str) {}

    async fn request_passphrase(&self, _network: OwnedObjectPath) -> Result<String, NoPassphrase> {
        let none = || NoPassphrase::Canceled("none was given".to_owned());
        self.passphrase.clone().ok_or_else(none)
    }
}

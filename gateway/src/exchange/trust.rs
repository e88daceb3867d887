//! Whom a listener believes about where a request comes from.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::http::forwarded;

/// The settings of one listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Whether connections begin with a PROXY header. Only [`Self::proxies`] may send one.
    pub proxy_protocol: ProxyProtocol,
    /// Who is believed about where a request came from.
    pub proxies: Vec<IpNet>,
    /// In which field they say it.
    pub forwarded_field: forwarded::Source,
}

impl Trust {
    /// Whether there is anybody to be believed.
    pub fn has_proxies(&self) -> bool {
        !self.proxies.is_empty()
    }

    /// Whether `address` is one of the trusted proxies.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.proxies.iter().any(|network| network.contains(&address))
    }
}

/// Whether connections begin with a header of the PROXY protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// None does.
    #[default]
    Off,
    /// Those of trusted proxies may.
    Optional,
    /// All do; others are closed.
    Required,
}

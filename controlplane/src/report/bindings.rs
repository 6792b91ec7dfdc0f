//! What the API answers about persistence templates, whose entries name nothing but a backend's slot.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use config::words::ServiceKey;
use dataplane::flow::network;
use dataplane::persist::Template;
use dataplane::snapshot::BackendSlot;
use ipnet::IpNet;

use crate::api::{self, ApiError};
use crate::state::{Service, State, no_service};

/// What a backend's slot says of a template.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    /// What has templates of its own: a service, or a group of them.
    pub scope: u64,
    service: ServiceKey,
    group: Option<String>,
    backend: SocketAddr,
    prefix_v4: u8,
    prefix_v6: u8,
}

/// What the slots of all backends say whose services keep templates, or of one service and those of its group.
///
/// # Errors
/// There is no such service.
pub fn all(state: &State, of: Option<ServiceKey>) -> Result<HashMap<BackendSlot, Binding>, ApiError> {
    let scope = match of {
        None => None,
        // Of a service without persistence there are none.
        Some(key) => {
            let mut services = state.services();
            let service = services.find(|it| it.config.key == key).ok_or_else(|| no_service(key))?;
            Some(service.compiled.persistence.map(|it| it.scope))
        }
    };
    let bindings = state.backend_slots().iter().zip(0..).filter_map(|(backend, slot)| {
        let backend = backend.as_ref()?;
        let service = state.service(backend.service)?;
        let binding = Binding::new(service, backend.config.address)?;
        let is_wanted = scope.is_none_or(|scope| scope == Some(binding.scope));
        is_wanted.then_some((BackendSlot(slot), binding))
    });
    Ok(bindings.collect())
}

impl Binding {
    fn new(service: &Service, backend: SocketAddr) -> Option<Self> {
        let persistence = service.compiled.persistence?;
        Some(Self {
            scope: persistence.scope,
            service: service.config.key,
            group: service.config.persistence.as_ref().and_then(|it| it.group.clone()),
            backend,
            prefix_v4: persistence.prefix_v4,
            prefix_v6: persistence.prefix_v6,
        })
    }

    /// Whether a template is of the network that a client is in.
    pub fn is_of(&self, client: IpAddr, template: &Template) -> bool {
        let client = match client {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        network(client.to_bits(), self.prefix_v4, self.prefix_v6) == template.key.client
    }

    /// A template as the API shows it.
    pub fn describe(&self, template: &Template) -> api::Template {
        let address = Ipv6Addr::from_bits(template.key.client).to_canonical();
        let prefix = if address.is_ipv4() { self.prefix_v4 } else { self.prefix_v6 };
        api::Template {
            // The rules let no longer prefix pass.
            client: IpNet::new(address, prefix).unwrap_or_else(|_| address.into()),
            service: self.service,
            group: self.group.clone(),
            port: (template.key.port != 0).then_some(template.key.port),
            backend: self.backend,
            expires_secs: template.left,
        }
    }
}

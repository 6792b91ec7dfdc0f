//! What the API answers about persistence templates, whose entries name nothing but a backend's slot.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use config::words::ServiceKey;
use dataplane::flow::network;
use dataplane::persist::Template;
use dataplane::snapshot::BackendSlot;
use ipnet::IpNet;

use crate::api::{self, ApiError};
use crate::state::{Service, State, no_service};

/// What a service says of the templates that name its backends.
#[derive(Debug)]
struct Keeper {
    /// What has templates of its own: a service, or a group of them.
    scope: u64,
    service: ServiceKey,
    group: Option<String>,
    prefix_v4: u8,
    prefix_v6: u8,
}

/// What a backend's slot says of a template.
#[derive(Clone, Debug)]
pub struct Binding {
    keeper: Arc<Keeper>,
    backend: SocketAddr,
}

/// What slots say, by their numbers.
#[derive(Debug)]
pub struct Bindings(Vec<Option<Binding>>);

impl Bindings {
    /// What a slot says, if templates of its backend's are wanted.
    pub fn get(&self, slot: BackendSlot) -> Option<&Binding> {
        self.0.get(slot.0 as usize)?.as_ref()
    }

    /// Whose templates a slot's are.
    pub fn scope(&self, slot: BackendSlot) -> Option<u64> {
        Some(self.get(slot)?.keeper.scope)
    }
}

/// What the slots of all backends say whose services keep templates, or of one service and those of its group.
///
/// There may be a million, of which the control thread makes this: for each it notes no more than where to look.
///
/// # Errors
/// There is no such service.
pub fn all(state: &State, of: Option<ServiceKey>) -> Result<Bindings, ApiError> {
    let scope = match of {
        None => None,
        // Of a service without persistence there are none.
        Some(key) => {
            let mut services = state.services();
            let service = services.find(|it| it.config.key == key).ok_or_else(|| no_service(key))?;
            Some(service.compiled.persistence.map(|it| it.scope))
        }
    };
    let is_wanted = |keeper: &Keeper| scope.is_none_or(|scope| scope == Some(keeper.scope));
    let keepers = state.service_slots().iter().map(|service| {
        let keeper = Keeper::of(service.as_ref()?).filter(is_wanted)?;
        Some(Arc::new(keeper))
    });
    let keepers: Vec<_> = keepers.collect();
    let bindings = state.backend_slots().iter().map(|backend| {
        let backend = backend.as_ref()?;
        let keeper = Arc::clone(keepers.get(usize::from(backend.service.0))?.as_ref()?);
        Some(Binding { keeper, backend: backend.config.address })
    });
    Ok(Bindings(bindings.collect()))
}

impl Keeper {
    fn of(service: &Service) -> Option<Self> {
        let persistence = service.compiled.persistence?;
        Some(Self {
            scope: persistence.scope,
            service: service.config.key,
            group: service.config.persistence.as_ref().and_then(|it| it.group.clone()),
            prefix_v4: persistence.prefix_v4,
            prefix_v6: persistence.prefix_v6,
        })
    }
}

impl Binding {
    /// Whether a template is of the network that a client is in.
    pub fn is_of(&self, client: IpAddr, template: &Template) -> bool {
        let client = match client {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        network(client.to_bits(), self.keeper.prefix_v4, self.keeper.prefix_v6) == template.key.client
    }

    /// A template as the API shows it.
    pub fn describe(&self, template: &Template) -> api::Template {
        let address = Ipv6Addr::from_bits(template.key.client).to_canonical();
        let prefix = if address.is_ipv4() { self.keeper.prefix_v4 } else { self.keeper.prefix_v6 };
        api::Template {
            // The rules let no longer prefix pass.
            client: IpNet::new(address, prefix).unwrap_or_else(|_| address.into()),
            service: self.keeper.service,
            group: self.keeper.group.clone(),
            port: (template.key.port != 0).then_some(template.key.port),
            backend: self.backend,
            expires_secs: template.left,
        }
    }
}

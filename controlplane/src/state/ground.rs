//! What services stand on: the network, pools and classes, as the configuration gives them.

use config::model::{Class, Config, SnatPool};
use config::network::Network;
use config::rules::Surroundings;
use config::words::ClassName;
use dataplane::schedule::hash::Secret;
use dataplane::snapshot::PoolSlot;

use crate::api::ApiError;
use crate::pools::Locals;

/// Everything that services are judged by and made with, besides themselves.
#[derive(Clone, Debug, Default)]
pub struct Ground {
    /// Where addresses are.
    pub network: Network,
    /// Pools of local addresses, by their number in a snapshot.
    pub pools: Vec<SnatPool>,
    /// The slots of their addresses.
    pub locals: Locals,
    /// Classes of packets, by their number in a snapshot.
    pub classes: Vec<Class>,
    /// The cluster's secret, if it has one.
    pub secret: Option<Secret>,
}

impl Ground {
    /// What a configuration says. Local addresses keep the slots that they have in `before`.
    ///
    /// # Errors
    /// There are more local addresses than slots.
    pub fn new(config: &Config, before: &Locals) -> Result<Self, ApiError> {
        Ok(Self {
            network: Network::new(&config.interfaces, &config.routes),
            pools: config.snat_pools.clone(),
            locals: before.with_pools(&config.snat_pools)?,
            classes: config.classes.clone(),
            secret: config.cluster.secret.as_deref().map(Secret::from_text),
        })
    }

    /// The same, for the rules.
    pub fn surroundings(&self) -> Surroundings<'_> {
        Surroundings::new(&self.network, &self.pools, &self.classes)
    }

    /// Number of a pool in a snapshot.
    pub fn pool(&self, name: &str) -> Option<PoolSlot> {
        let number = self.pools.iter().position(|pool| pool.name == name)?;
        // There are fewer pools than local addresses, which are 256 at most.
        Some(PoolSlot(number as u16))
    }

    /// Number of a class in a snapshot. One that no packet is of if the class is gone, which may be so for a
    /// service that is gone too and has flows left.
    pub fn class(&self, name: ClassName) -> u16 {
        let number = self.classes.iter().position(|class| class.name == name);
        number.and_then(|number| u16::try_from(number).ok()).unwrap_or(u16::MAX)
    }
}

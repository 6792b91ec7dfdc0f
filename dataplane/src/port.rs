//! A worker's share of an Ethernet device: one receive and one transmit queue.

use crate::buf::Frame;
use crate::burst::Burst;

/// Number of a device port, counted from 0. Interfaces share one by their VLANs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PortId(pub u8);

/// Queues that frames come from and go to. With DPDK they are a device's; tests use queues in memory.
pub trait Queue {
    /// The frames it carries.
    type Frame: Frame;

    /// Fills an empty burst with what has arrived, without waiting.
    fn receive(&mut self, burst: &mut Burst<Self::Frame>);

    /// Sends as many frames as the device takes now, from the front; returns how many. The others stay.
    fn send(&mut self, burst: &mut Burst<Self::Frame>) -> usize;

    /// A frame of one byte from where its memory is, to make others from; `None` if none is free there.
    fn seed(&self) -> Option<Self::Frame>;
}

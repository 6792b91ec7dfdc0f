//! ICMP
use super::{Context, Forwarder, Outbox};
use crate::buf::Frame;
use crate::drops::DropReason;
use crate::packet::Packet;
use crate::port::PortId;
use crate::route::InterfaceId;

impl<F: Frame> Forwarder<F> {
    #[cold]
    pub(super) fn take_icmp(
        &mut self,
        context: Context,
        port: PortId,
        interface: InterfaceId,
        packet: &Packet,
        frame: F,
        out: &mut Outbox<F>,
    ) {
        let _ = (context, port, interface, packet, out);
        self.drop(Some(frame), DropReason::UnknownIcmp);
    }
}

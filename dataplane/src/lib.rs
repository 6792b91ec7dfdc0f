//! Trutina's packet path.
//!
//! The journey of a packet, in the order of the modules: a [`worker`] receives a [`burst`] of frames
//! ([`buf`]) from its share of a [`port`]; [`mod@forward`] takes the burst through its stages: [`mod@parse`] the
//! headers ([`wire`]), look the service up in the [`snapshot`] ([`lookup`], [`route`]), find or make the
//! [`flow`], choosing a backend for a new one ([`schedule`]), and [`rewrite`] the frame ([`csum`]) for its
//! next hop. Then the worker sends it. What goes no further is counted ([`stats`]) by reason ([`drops`]); a
//! worker that finds nothing may rest ([`idle`]).
//!
//! The control thread changes what workers do only by publishing ([`publish`]) a new snapshot.
//!
//! It is for x86-64: lines, words and instructions ([`prefetch`], `eight`) are those of such processors.
//!
//! Without the feature `dpdk` the crate is pure logic: it builds, tests and runs under miri with no DPDK
//! installed. With it, `dpdk` binds workers to real devices.

pub mod buf;
pub mod burst;
pub mod clock;
pub mod csum;
#[cfg(feature = "dpdk")]
pub mod dpdk;
pub mod drops;
mod eight;
pub mod flow;
pub mod forward;
pub mod fragment;
pub mod idle;
pub mod limit;
pub mod load;
pub mod local;
pub mod lookup;
pub mod measure;
pub mod packet;
pub mod parse;
pub mod persist;
pub mod port;
pub mod prefetch;
pub mod publish;
pub mod rewrite;
pub mod route;
pub mod schedule;
pub mod snapshot;
pub mod stats;
pub mod team;
pub mod toeplitz;
pub mod wire;
pub mod worker;

#[cfg(test)]
mod samples;
#[cfg(test)]
mod testing;

//! Raw bindings to the installed DPDK (22.11 or newer): nothing safe, nothing clever.
//!
//! The safe layer over it is `dataplane::dpdk`.
#![allow(non_camel_case_types, non_upper_case_globals, non_snake_case, missing_docs)]
#![allow(clippy::all, unsafe_op_in_unsafe_fn, unnecessary_transmutes)]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));

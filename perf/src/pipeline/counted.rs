//! Instructions per packet, as they were counted last (`instructions.py`).

use config::words::Scheduler;

use super::draw::Draw;
use super::event::Event;
use super::world::{Fill, Shape};

const COUNTS: &str = include_str!("../../instructions.tsv");

/// Instructions of a packet, if such packets were counted: in the same world but for the number of flows, which
/// changes little.
pub fn instructions(shape: &Shape, event: Event) -> Option<u32> {
    let Shape { mode, family, services, busy, each, weights, scheduler, vips, .. } = *shape;
    let Shape { routes, frame, fill, draw, workers, .. } = *shape;
    let is_common = (services, busy, each, weights, scheduler, vips, routes, frame)
        == (8, 8, 8, 1, Scheduler::Wrr, 250, 2, 64);
    if !is_common || workers > 1 || fill != Fill::RATED || draw != Draw::Uniform {
        return None;
    }
    let case = format!("{mode}\t{family}\t{event}\t");
    COUNTS.lines().find_map(|line| line.strip_prefix(&case))?.parse().ok()
}

//! Tables of which a line is hardly ever needed again soon: their lines are asked for several at once.

use super::fast::{Asks, ENDS, wide_world};
use super::*;
use crate::samples::{Body, Sample, syn};

#[test]
fn none_is_left_unasked() {
    for (ends @ [_, vip, ..], eights) in ENDS.into_iter().flat_map(|ends| [(ends, false), (ends, true)]) {
        let mut path = Path::new(wide_world(ends, (Mode::Dr, false), Asks::Nothing, None));
        path.take_eights(eights);
        let client = |port: u16| ends[0].replace("40000", &port.to_string());
        for port in 1..=40 {
            assert!(matches!(path.pass(syn(&client(port), vip).frame()), End::Sent(_)));
        }
        for count in [1, 7, 8, 13, 32] {
            let mut burst = Burst::default();
            for port in 1..=count {
                let body = Body::Tcp { flags: ACK, options: Vec::new() };
                burst.push(Sample { body, ..syn(&client(port), vip) }.frame()).unwrap();
            }
            assert_eq!(path.forward(&mut burst).len(), usize::from(count));
            assert!(path.forwarder.sights.as_ref().unwrap().are_asked(), "{vip}: {count}");
        }
    }
}

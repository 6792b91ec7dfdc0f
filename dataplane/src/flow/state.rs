//! What a flow is doing, and how long it may be idle: IPVS's state machine, names and timeouts.
//!
//! The tables are those of Linux 6.1, net/netfilter/ipvs/ip_vs_proto_tcp.c.

use crate::wire::tcp;

/// State of a flow, with the names that `ipvsadm -Lc` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// No packet was judged yet.
    None,
    /// Data flows both ways.
    Established,
    /// The backend opened (NAT only, where its SYN is seen).
    SynSent,
    /// The client opened.
    SynRecv,
    /// The backend closed first, or the only side that is seen closed.
    FinWait,
    /// Both sides closed.
    TimeWait,
    /// Reset.
    Close,
    /// The client closed first.
    CloseWait,
    /// The last acknowledgment is awaited.
    LastAck,
    /// Waiting for a client.
    Listen,
    /// Opened, and the opening acknowledged.
    SynAck,
    /// A UDP exchange.
    Udp,
    /// A UDP exchange of which one packet was seen. IPVS does not tell it from the others; here a flood of
    /// single packets cannot displace exchanges that go on.
    UdpNew,
}

use State::{
    Close, CloseWait, Established, FinWait, LastAck, Listen, None as Fresh, SynAck, SynRecv, SynSent,
    TimeWait, Udp, UdpNew,
};

impl State {
    /// Every state, in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Fresh,
        Established,
        SynSent,
        SynRecv,
        FinWait,
        TimeWait,
        Close,
        CloseWait,
        LastAck,
        Listen,
        SynAck,
        Udp,
        UdpNew,
    ];
    /// Number of states.
    pub const COUNT: usize = Self::ALL.len();

    /// Name as IPVS prints it.
    pub const fn name(self) -> &'static str {
        match self {
            Fresh => "NONE",
            Established => "ESTABLISHED",
            SynSent => "SYN_SENT",
            SynRecv => "SYN_RECV",
            FinWait => "FIN_WAIT",
            TimeWait => "TIME_WAIT",
            Close => "CLOSE",
            CloseWait => "CLOSE_WAIT",
            LastAck => "LAST_ACK",
            Listen => "LISTEN",
            SynAck => "SYNACK",
            Udp | UdpNew => "UDP",
        }
    }

    /// Whether `ipvsadm` counts such a connection under ActiveConn.
    pub const fn is_active(self) -> bool {
        matches!(self, Established | SynSent | SynRecv | SynAck)
    }

    /// Whether it is a state of UDP.
    pub const fn is_udp(self) -> bool {
        matches!(self, Udp | UdpNew)
    }

    /// Whether a flow was opened but never went on: the first to go when the table is full.
    pub const fn is_embryonic(self) -> bool {
        matches!(self, Fresh | SynRecv | SynAck | UdpNew)
    }

    /// Whether the ends of a connection may wait for each other.
    pub const fn is_open(self) -> bool {
        matches!(self, Established | SynSent | FinWait | CloseWait | LastAck)
    }

    /// Whether the connection is over, so that its client may open another from the same port.
    pub const fn is_closing(self, view: View) -> bool {
        // Where replies are not seen, FIN_WAIT is the last state that a closed connection reaches; IPVS
        // reuses it there with conn_reuse_mode bit 2.
        matches!(self, TimeWait | Close) || (matches!(self, FinWait) && matches!(view, View::OneWay))
    }
}

/// Which packets of a connection are seen, and from where one came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum View {
    /// From the client, where replies are seen too (NAT).
    Client,
    /// From the backend (NAT).
    Server,
    /// From the client, where replies are not seen (DR, tunnel).
    OneWay,
}

/// State transitions by view, event (SYN, FIN, ACK, RST) and state.
const TRANSITIONS: [[[State; State::COUNT - 2]; 4]; 3] = [
    [
        [
            SynRecv,
            Established,
            Established,
            SynRecv,
            SynRecv,
            SynRecv,
            SynRecv,
            SynRecv,
            SynRecv,
            SynRecv,
            SynRecv,
        ],
        [
            Close, CloseWait, SynSent, TimeWait, TimeWait, TimeWait, Close, CloseWait, LastAck, Listen,
            TimeWait,
        ],
        [
            Established,
            Established,
            SynSent,
            Established,
            FinWait,
            TimeWait,
            Close,
            CloseWait,
            Close,
            Listen,
            Established,
        ],
        [Close, Close, Close, SynRecv, Close, Close, Close, Close, LastAck, Listen, SynRecv],
    ],
    [
        [
            SynSent,
            Established,
            SynSent,
            SynRecv,
            SynSent,
            SynSent,
            SynSent,
            SynSent,
            SynSent,
            Listen,
            SynRecv,
        ],
        [TimeWait, FinWait, SynSent, TimeWait, FinWait, TimeWait, Close, TimeWait, LastAck, Listen, TimeWait],
        [
            Established,
            Established,
            SynSent,
            Established,
            FinWait,
            TimeWait,
            Close,
            CloseWait,
            LastAck,
            Established,
            Established,
        ],
        [Close, Close, SynSent, Close, Close, TimeWait, Close, Close, Close, Close, Close],
    ],
    [
        [
            SynRecv,
            Established,
            Established,
            SynRecv,
            SynRecv,
            SynRecv,
            SynRecv,
            SynRecv,
            SynRecv,
            SynRecv,
            SynRecv,
        ],
        [Close, FinWait, SynSent, TimeWait, FinWait, TimeWait, Close, CloseWait, LastAck, Listen, TimeWait],
        [
            Established,
            Established,
            SynSent,
            Established,
            FinWait,
            TimeWait,
            Close,
            CloseWait,
            Close,
            Listen,
            Established,
        ],
        [Close, Close, Close, SynRecv, Close, Close, Close, Close, LastAck, Listen, Close],
    ],
];

/// The state that follows `state` when a packet with `tcp_flags` is seen. UDP packets have no flags.
#[inline]
pub const fn next(state: State, view: View, tcp_flags: u8) -> State {
    if state.is_udp() {
        return Udp;
    }
    // RST > SYN > FIN > ACK, as tcp_state_idx() in the kernel. A segment with none of them is not a legal one;
    // there it closes the connection, here it changes nothing, so that nobody can cut flows with it.
    let event = if tcp_flags & tcp::RST != 0 {
        3
    } else if tcp_flags & tcp::SYN != 0 {
        0
    } else if tcp_flags & tcp::FIN != 0 {
        1
    } else if tcp_flags & tcp::ACK != 0 {
        2
    } else {
        return state;
    };
    let (followers, number) = (&TRANSITIONS[view as usize][event], state as usize);
    if number < followers.len() { followers[number] } else { state }
}

/// The states that a packet without SYN leaves as they are, a bit for each number, by view and the TCP flags from FIN to
/// ACK.
const GOES_ON: [[u32; 32]; 3] = {
    let mut goes_on = [[0; 32]; 3];
    let (views, mut view) = ([View::Client, View::Server, View::OneWay], 0);
    while view < views.len() {
        let mut flags = 0;
        while flags < 32 {
            // Not that of empty places, which a flow of nobody might be taken for.
            let mut number = 1;
            while number < State::COUNT {
                let state = State::ALL[number];
                if flags & tcp::SYN == 0 && next(state, views[view], flags) as usize == number {
                    goes_on[view][flags as usize] |= 1 << number;
                }
                number += 1;
            }
            flags += 1;
        }
        view += 1;
    }
    goes_on
};

/// Whether a packet with `tcp_flags` opens nothing and leaves a state but [`State::None`] as it is, by what [`next`] says, at
/// one look; and the flow has a local port, or none, as `has_local` says.
/// The lowest four bits of `number` are those of the state, and the fifth says whether it has one.
#[inline]
pub fn goes_on(number: u32, view: View, tcp_flags: u8, has_local: bool) -> bool {
    let states = GOES_ON[view as usize][usize::from(tcp_flags & 0x1f)] << if has_local { 16 } else { 0 };
    states >> (number & 0x1f) & 1 != 0
}

/// Seconds a flow may be idle, by state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts([u32; State::COUNT]);

impl Timeouts {
    /// The configured timeouts, by state.
    pub fn new(configured: &config::model::Timeouts) -> Self {
        Self(State::ALL.map(|state| match state {
            Fresh => configured.none_secs,
            Established => configured.established_secs,
            SynSent => configured.syn_sent_secs,
            SynRecv => configured.syn_recv_secs,
            FinWait => configured.fin_wait_secs,
            TimeWait => configured.time_wait_secs,
            Close => configured.close_secs,
            CloseWait => configured.close_wait_secs,
            LastAck => configured.last_ack_secs,
            Listen => configured.listen_secs,
            SynAck => configured.synack_secs,
            Udp | UdpNew => configured.udp_secs,
        }))
    }

    /// The shortest of them.
    pub fn shortest(&self) -> u32 {
        self.0.into_iter().min().unwrap_or(0)
    }

    /// Seconds a flow in this state may be idle.
    #[inline]
    pub fn of(&self, state: State) -> u32 {
        self.0[state as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tcp::{ACK, FIN, RST, SYN};

    fn walk(steps: &[(View, u8)]) -> Vec<State> {
        let mut state = Fresh;
        steps
            .iter()
            .map(|&(view, flags)| {
                state = next(state, view, flags);
                state
            })
            .collect()
    }

    #[test]
    fn numbers_index() {
        for (number, state) in State::ALL.iter().enumerate() {
            assert_eq!(*state as usize, number);
        }
    }

    #[test]
    fn what_goes_on_is_what_the_next_state_says() {
        for (view, state) in [View::Client, View::Server, View::OneWay]
            .iter()
            .flat_map(|view| State::ALL.map(|state| (*view, state)))
        {
            for flags in 0..=0xff {
                let same = state != Fresh && flags & SYN == 0 && next(state, view, flags) == state;
                for others in [0, 0x20, 0xff_ffe0] {
                    let number = state as u32 | others;
                    for (local, asked) in [(0, false), (1, true), (0, true), (1, false)] {
                        let goes_on = goes_on(number | local << 4, view, flags, asked);
                        let expected = same && asked == (local == 1);
                        assert_eq!(goes_on, expected, "{view:?} {state:?} {flags:#x} {local} {asked}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_nat_connection_opens_and_closes_from_the_client() {
        let seen = walk(&[
            (View::Client, SYN),
            (View::Server, SYN | ACK),
            (View::Client, ACK),
            (View::Server, ACK),
            (View::Client, FIN | ACK),
            (View::Server, FIN | ACK),
            (View::Client, ACK),
        ]);
        assert_eq!(seen, [SynRecv, SynRecv, Established, Established, CloseWait, TimeWait, TimeWait]);
    }

    #[test]
    fn a_nat_connection_closes_from_the_backend() {
        let seen = walk(&[
            (View::Client, SYN),
            (View::Client, ACK),
            (View::Server, FIN | ACK),
            (View::Client, FIN | ACK),
        ]);
        assert_eq!(seen, [SynRecv, Established, FinWait, TimeWait]);
    }

    #[test]
    fn a_one_way_connection_ends_in_fin_wait() {
        let seen =
            walk(&[(View::OneWay, SYN), (View::OneWay, ACK), (View::OneWay, FIN | ACK), (View::OneWay, ACK)]);
        assert_eq!(seen, [SynRecv, Established, FinWait, FinWait]);
        assert!(FinWait.is_closing(View::OneWay) && !FinWait.is_closing(View::Client));
    }

    #[test]
    fn a_reset_closes_but_not_an_opening_that_the_client_may_have_faked() {
        assert_eq!(walk(&[(View::Client, SYN), (View::Client, RST)]), [SynRecv, SynRecv]);
        assert_eq!(walk(&[(View::Client, SYN), (View::Server, RST | ACK)]), [SynRecv, Close]);
        assert_eq!(walk(&[(View::Client, SYN), (View::Client, ACK), (View::Client, RST)])[2], Close);
    }

    #[test]
    fn udp_is_new_until_its_second_packet() {
        assert_eq!(next(UdpNew, View::Server, 0), Udp);
        assert_eq!(next(Udp, View::Client, 0), Udp);
        assert_eq!(next(Udp, View::Server, SYN), Udp);
    }
}

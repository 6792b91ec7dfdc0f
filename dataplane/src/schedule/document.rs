//! The numbers of docs/schedulers.md: each table between `<!-- NAME, by a test -->` and `<!-- end -->` is made here and
//! held against what is written. To write them anew:
//! `WRITE_DOCS=1 cargo test --profile release-test -p dataplane --no-default-features document`.

use std::fmt::{Display, Write as _};
use std::path::PathBuf;

use config::model::Hash;

use super::hash::Secret;
use super::maglev::slots;
use super::table::Member;
use super::table::testing::members;
use super::*;
use crate::flow::mapped;
use crate::stats::WorkerStats;
use crate::testing;
use config::words::Protocol;

const SLOT: ServiceSlot = ServiceSlot(0);

/// A worker with a service of these backends.
struct World {
    schedulers: Schedulers,
    service: Service,
    stats: Arc<WorkerStats>,
}

impl World {
    fn new(scheduler: Scheduler, hash: Hash, members: &[Member]) -> Self {
        let slots = members.iter().map(|member| member.backend.0 as usize + 1).max().unwrap_or_default();
        let setup = Setup { team: Team::new(1, slots, 0), ..testing::setup() };
        let stats = Arc::new(WorkerStats::new(slots));
        setup.team.join(0, &stats);
        let taking = members.iter().filter(|member| member.weight > 0);
        let candidates = taking.map(|member| Candidate::new(member.backend, member.weight)).collect();
        let service = Service::new("tcp:192.0.2.100:80".parse().unwrap(), scheduler, 1, candidates);
        let service = service.planned(&ingredients(hash, members), None);
        Self { schedulers: Schedulers::new(&setup), service, stats }
    }

    fn plain(scheduler: Scheduler, weights: &[u32]) -> Self {
        Self::new(scheduler, Hash::of(scheduler), &members(weights))
    }

    /// The backend of a flow of a client, which stays.
    fn open(&mut self, client: u32) -> Option<BackendSlot> {
        let picked = self.schedulers.pick(1, SLOT, &self.service, || opening(client))?;
        self.stats.loads.begin(picked, true);
        Some(picked)
    }
}

fn ingredients(hash: Hash, members: &[Member]) -> Ingredients {
    let members = members.to_vec();
    Ingredients {
        hash,
        secret: Secret::from_text("secret"),
        members,
        expiration: config::model::Service::EXPIRATION_SECS,
        layout: None,
        servers: Vec::new(),
    }
}

/// The first flow of a client by its number. Clients are random, so that also what they want differs.
fn opening(client: u32) -> Opening {
    let random = Secret::from_text("clients").address_and_port(client.into(), 0);
    Opening {
        source: mapped(random as u32),
        source_port: 4711,
        destination: mapped((random >> 32) as u32),
        destination_port: 80,
        protocol: Protocol::Tcp,
    }
}

/// A table of Markdown.
fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(N));
    for row in rows {
        _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

/// Words in a row.
fn words(them: impl IntoIterator<Item = impl Display>) -> String {
    them.into_iter().map(|it| it.to_string()).collect::<Vec<_>>().join(" ")
}

fn percent(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole as f64
}

/// Who gets the first twelve connections.
fn sequences(schedulers: &[Scheduler]) -> String {
    let letter = |picked: Option<BackendSlot>| picked.map_or('–', |it| char::from(b'A' + it.0 as u8));
    let sequence = |scheduler, weights: &[u32]| {
        let mut world = World::plain(scheduler, weights);
        (0..12).map(|client| letter(world.open(client))).collect()
    };
    let row = |it: &Scheduler| [format!("`{it}`"), sequence(*it, &[1, 2, 3]), sequence(*it, &[5, 1, 1])];
    table(["Twelve connections that stay open", "1, 2, 3", "5, 1, 1"], schedulers.iter().map(row))
}

fn turns() -> String {
    use Scheduler::{Fo, Lc, Nq, Ovf, Rr, Sed, Swrr, Wlc, Wrr};
    sequences(&[Rr, Wrr, Swrr, Lc, Wlc, Sed, Nq, Fo, Ovf])
}

fn localities() -> String {
    sequences(&[Scheduler::Lblc, Scheduler::Lblcr])
}

/// Draws among three equal backends of which none has flows.
fn draws() -> String {
    const DRAWS: usize = 100_000;
    let row = |scheduler| {
        let mut world = World::plain(scheduler, &[1, 1, 1]);
        let mut counts = [0; 3];
        (0..DRAWS).for_each(|_| {
            let picked = world.schedulers.pick(1, SLOT, &world.service, || unreachable!("it draws"));
            counts[picked.unwrap().0 as usize] += 1;
        });
        let [a, b, c] = counts.map(|count| format!("{:.0} %", percent(count, DRAWS)));
        [format!("`{scheduler}`"), a, b, c]
    };
    let schedulers = [Scheduler::Random, Scheduler::P2c, Scheduler::Twos];
    table(["Draws of equal backends without load", "A", "B", "C"], schedulers.map(row))
}

/// What hash schedulers make of random clients.
fn hashes() -> String {
    const CLIENTS: u32 = 100_000;
    let chosen = |scheduler, members: &[Member]| -> Vec<u32> {
        let mut world = World::new(scheduler, Hash::of(scheduler), members);
        (0..CLIENTS).map(|client| world.open(client).map_or(u32::MAX, |it| it.0)).collect()
    };
    let counts = |chosen: &[u32], backends: u32| -> Vec<usize> {
        (0..backends).map(|backend| chosen.iter().filter(|it| **it == backend).count()).collect()
    };
    let shares = |scheduler, weights: &[u32]| {
        let counts = counts(&chosen(scheduler, &members(weights)), weights.len() as u32);
        words(counts.iter().map(|count| format!("{:.1}", percent(*count, CLIENTS as usize))))
    };
    // Of equal backends: who moves when one leaves, and how much the busiest has.
    let of_equals = |scheduler, backends: u32| {
        let (all, who) = (members(&vec![1; backends as usize]), backends / 2);
        let left: Vec<_> = all.iter().copied().filter(|it| it.backend.0 != who).collect();
        let (before, after) = (chosen(scheduler, &all), chosen(scheduler, &left));
        let others = before.iter().zip(&after).filter(|(before, _)| **before != who);
        let whole = others.clone().count();
        let moved = percent(others.filter(|(before, after)| before != after).count(), whole);
        let most = counts(&before, backends).into_iter().max().unwrap_or_default();
        (format!("{moved:.1} %"), format!("{:.2}", most as f64 * f64::from(backends) / f64::from(CLIENTS)))
    };
    let row = |scheduler: Scheduler| {
        let [(moved, most), (moved_100, most_100)] = [10, 100].map(|backends| of_equals(scheduler, backends));
        let [even, uneven] = [&[4, 3, 2], &[1000, 1, 1]].map(|weights| shares(scheduler, weights));
        [format!("`{scheduler}`"), even, uneven, moved, moved_100, most, most_100]
    };
    let head = [
        "Scheduler",
        "Shares of weights 4, 3, 2 (%)",
        "of 1000, 1, 1",
        "moved of 10",
        "of 100",
        "most of 10",
        "of 100",
    ];
    let schedulers = [Scheduler::Dh, Scheduler::Sh, Scheduler::Mh, Scheduler::Maglev, Scheduler::Bounded];
    table(head, schedulers.map(row))
}

/// Slots by weights. A weight in brackets is what a quiesced backend had before.
fn slots_by_weights(scheduler: Scheduler, head: &str, lists: &[&[(u32, u32)]]) -> String {
    let row = |list: &&[(u32, u32)]| {
        let mut members = members(&list.iter().map(|(weight, _)| *weight).collect::<Vec<_>>());
        members.iter_mut().zip(*list).for_each(|(member, (_, before))| member.full_weight = *before);
        let plan = Plan::new(scheduler, &[], &ingredients(Hash::of(scheduler), &members), None);
        let weight = |&(weight, before): &(u32, u32)| match weight {
            0 if before > 0 => format!("0 (before: {before})"),
            _ => weight.to_string(),
        };
        let weights: Vec<_> = list.iter().map(weight).collect();
        [weights.join(", "), words(plan.shares())]
    };
    table(["Weights", head], lists.iter().map(row))
}

fn dh() -> String {
    slots_by_weights(Scheduler::Dh, "Slots of 256", &[&[(4, 4), (3, 3), (2, 2)], &[(1, 1); 5]])
}

fn sh() -> String {
    let lists: [&[_]; 4] =
        [&[(4, 4), (3, 3), (2, 2)], &[(100, 100); 3], &[(1000, 1000), (1, 1), (1, 1)], &[(0, 0), (1, 1)]];
    slots_by_weights(Scheduler::Sh, "Slots of 256", &lists)
}

fn mh() -> String {
    let lists: [&[_]; 7] = [
        &[(4, 4), (3, 3), (2, 2)],
        &[(1, 1), (1, 1), (0, 7), (3, 3)],
        &[(1000, 1000), (1, 1), (1, 1)],
        &[(0, 5), (0, 5)],
        &[(0, 0), (2, 2)],
        &[(16_776_960, 16_776_960), (65_535, 65_535), (77, 77)],
        &[(100, 100); 3],
    ];
    slots_by_weights(Scheduler::Mh, "Slots of 4093", &lists)
}

/// Slots that change hands beyond those of the backend that leaves, or has half its weight.
fn disruption() -> String {
    let secret = Secret::from_text("secret");
    let owners = |members: &[Member]| -> Vec<u32> {
        let slots = slots(members, Hash::TABLE_SIZE, &secret);
        slots.iter().map(|slot| members[*slot as usize].backend.0).collect()
    };
    let moved = |before: &[Member], after: &[Member], who: u32| {
        let (before, after) = (owners(before), owners(after));
        let moved = before.iter().zip(&after).filter(|&(a, b)| a != b && *a != who && *b != who).count();
        format!("{:.2} %", percent(moved, before.len()))
    };
    let cases = [2, 3, 10, 30, 100, 300, 1000].map(|backends: u32| {
        let (all, who) = (members(&vec![100; backends as usize]), backends / 2);
        let left: Vec<_> = all.iter().copied().filter(|it| it.backend.0 != who).collect();
        let mut lighter = all.clone();
        (lighter[who as usize].weight, lighter[who as usize].full_weight) = (50, 50);
        [backends.to_string(), moved(&all, &left, who), moved(&all, &lighter, who)]
    });
    table(["Backends", "one of them leaves", "one has half its weight"], cases)
}

/// Flows of one client.
fn bounds() -> String {
    let row = |name: &str, scheduler, hash| {
        let mut world = World::new(scheduler, hash, &members(&[1; 4]));
        let mut counts = [0; 4];
        (0..1000).for_each(|_| counts[world.open(7).unwrap().0 as usize] += 1);
        counts.sort_unstable_by(|a, b| b.cmp(a));
        [name.to_owned(), words(counts)]
    };
    let bounded = |load_factor| Hash { load_factor, ..Hash::of(Scheduler::Bounded) };
    let rows = [
        row("`maglev`", Scheduler::Maglev, Hash::of(Scheduler::Maglev)),
        row("`bounded`, factor 1.5", Scheduler::Bounded, bounded(1.5)),
        row("`bounded`, factor 1.25", Scheduler::Bounded, bounded(1.25)),
    ];
    table(["1000 flows of one client, four backends", "Flows"], rows)
}

/// Who has the least traffic for its weight, of backends A and B with weights 1 and 3.
fn traffic() -> String {
    let row = |(bytes, flows): ([u64; 2], [u32; 2])| {
        let world = World::plain(Scheduler::LeastBandwidth, &[1, 3]);
        for (slot, (bytes, flows)) in (0..).map(BackendSlot).zip(bytes.into_iter().zip(flows)) {
            world.stats.backend(slot).in_bytes.add(bytes);
            (0..flows).for_each(|_| world.stats.loads.begin(slot, true));
        }
        let mut schedulers = world.schedulers;
        let picked = schedulers.pick(1, SLOT, &world.service, || unreachable!("it weighs")).unwrap();
        let chosen = ["A", "B"][picked.0 as usize];
        [
            bytes[0].to_string(),
            bytes[1].to_string(),
            format!("{} and {}", flows[0], flows[1]),
            chosen.to_owned(),
        ]
    };
    let head = ["Bytes of A, weight 1", "of B, weight 3", "Flows of A and B", "Chosen"];
    let some = [([1000, 2999], [0, 9]), ([1000, 3001], [9, 0]), ([1000, 3000], [9, 0])];
    let none = [([0, 0], [2, 5]), ([0, 0], [2, 6])];
    table(head, some.into_iter().chain(none).map(row))
}

/// Name of a table, and what makes it.
type Named = (&'static str, fn() -> String);

const TABLES: [Named; 10] = [
    ("turns", turns),
    ("lots", draws),
    ("localities", localities),
    ("hashes", hashes),
    ("dh", dh),
    ("sh", sh),
    ("mh", mh),
    ("disruption", disruption),
    ("bounds", bounds),
    ("traffic", traffic),
];

#[test]
#[cfg_attr(miri, ignore = "it reads a file, and nothing unsafe is in it")]
fn the_tables_of_the_document_are_what_schedulers_do() {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/schedulers.md");
    let written = std::fs::read_to_string(&file).unwrap();
    let mut made = written.clone();
    // What takes long is left to the tests in release mode.
    let tables = TABLES.iter().filter(|(name, _)| !cfg!(debug_assertions) || *name != "hashes");
    for (name, table) in tables {
        let head = format!("<!-- {name}, by a test -->\n");
        let begin = made.find(&head).unwrap_or_else(|| panic!("no table {name}")) + head.len();
        let end = begin + made[begin..].find("<!-- end -->").unwrap();
        made.replace_range(begin..end, &table());
    }
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(&file, &made).unwrap();
        return;
    }
    for (written, made) in written.lines().zip(made.lines()) {
        assert_eq!(written, made, "run this test with WRITE_DOCS=1");
    }
    assert_eq!(written, made);
}

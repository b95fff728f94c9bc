//! A search gives the answer of a walk, whatever the nodes are like, whatever has changed, and however far an order has fallen behind.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::amounts::{CpuMillis, MemoryBytes, Request};
use crate::ids::Name;
use crate::job::{Arrangement, Constraints, Selector, Shape, TaskGroup};
use crate::scheduler::config::GpuKind;
use crate::scheduler::place::filter::{Lane, Traits};
use crate::scheduler::place::{Demand, LANES, Lanes, pack, take};

/// A node: its zone, its GPUs by lane, and what is free of it.
type Spec = (u8, [u8; 4], u64, u64, [u8; 4], bool);

fn spec() -> impl Strategy<Value = Spec> {
    // Few values, so that many nodes have as much as each other.
    (0..3_u8, prop::array::uniform4(0..4_u8), 0..6_u64, 0..6_u64, prop::array::uniform4(0..4_u8), prop::bool::weighted(0.9))
}

fn lane(at: usize) -> Lane {
    let kind = if at == 2 { GpuKind::Mig { profile: "1g".into() } } else { GpuKind::Whole };
    let these = if at == 3 { vec!["u".into()] } else { Vec::new() };
    Lane { model: ["A", "B", "B", "B"][at].into(), memory: MemoryBytes([40, 80, 10, 80][at]), kind, these }
}

fn traits(spec: &Spec) -> Traits {
    let labels = BTreeMap::from([("zone".into(), ["x", "y", "z"][usize::from(spec.0)].into())]);
    Traits { labels, lanes: (0..4).map(lane).collect() }
}

fn room(spec: &Spec) -> Room {
    let (_, has, cpu, memory, free, open) = *spec;
    let mut gpus = Lanes::default();
    for at in 0..4 {
        (0..free[at].min(has[at])).for_each(|_| gpus.put(at as u8));
    }
    let room = Room { cpu, memory, gpus, named: 0b1000, has_gpus: has != [0; 4], open: true };
    if open { room } else { Room::CLOSED }
}

/// A group: replicas, what each asks for, and its constraints by number.
type Ask = (u32, u64, u64, u32, u8);

fn group(name: usize, (replicas, cpu, memory, gpus, constraints): Ask) -> TaskGroup {
    let mut group = TaskGroup::new(
        Name::from(name.to_string()),
        replicas,
        Request { cpu: CpuMillis(cpu), memory: MemoryBytes(memory), gpus },
    );
    let zone =
        |values: &[&str]| Selector::In { label: "zone".into(), values: values.iter().map(|&value| value.into()).collect() };
    group.constraints = match constraints {
        0 => Constraints { nodes: vec![zone(&["x"])], ..Constraints::NONE },
        1 => Constraints { nodes: vec![Selector::NotIn { label: "zone".into(), values: vec!["x".into()] }], ..Constraints::NONE },
        2 => Constraints { gpu_models: vec!["B".into()], ..Constraints::NONE },
        3 => Constraints { gpu_memory: MemoryBytes(41), nodes: vec![zone(&["x", "y"])], ..Constraints::NONE },
        4 => Constraints { mig_profile: Some("1g".into()), ..Constraints::NONE },
        6 => Constraints { gpu_uuids: vec!["u".into()], ..Constraints::NONE },
        5 => Constraints { gpu_models: vec!["none".into()], ..Constraints::NONE },
        _ => Constraints::NONE,
    };
    group
}

fn ask() -> impl Strategy<Value = Ask> {
    (1..7_u32, 0..4_u64, 0..4_u64, 0..4_u32, 0..9_u8)
}

#[derive(Clone, Debug)]
enum Step {
    Change(usize, Spec),
    Search {
        groups: Vec<Ask>,
        least: u32,
        spread: bool,
        start: bool,
    },
    /// So many changes that the log is given up.
    Storm,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..1000_usize, spec()).prop_map(|(node, spec)| Step::Change(node, spec)),
        9 => (prop::collection::vec(ask(), 1..3), 0..4_u32, prop::bool::weighted(0.3), prop::bool::ANY)
            .prop_map(|(groups, least, spread, start)| Step::Search { groups, least, spread, start }),
        1 => Just(Step::Storm),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_search_finds_what_a_walk_finds(nodes in prop::collection::vec(spec(), 1..24), steps in prop::collection::vec(step(), 1..60)) {
        let mut specs = nodes;
        let mut filters = Filters::new();
        for (at, spec) in specs.iter().enumerate() {
            filters.update(at, Some(&traits(spec)));
        }
        let mut field = Field { few: 0, ..Field::new(Rooms::new(specs.iter().map(room).collect())) };
        let mut searched = 0;
        for step in steps {
            match step {
                Step::Change(node, spec) => {
                    let node = node % (specs.len() + 1);
                    if node == specs.len() {
                        specs.push(spec);
                        field.push(room(&spec));
                    } else {
                        specs[node] = spec;
                        field.set(node, room(&spec));
                    }
                    if filters.update(node, Some(&traits(&spec))) {
                        field.note(node);
                    }
                }
                Step::Storm => (0..1100).for_each(|at| field.note(at % specs.len())),
                Step::Search { groups, least, spread, start } => {
                    let tasks = groups.into_iter().enumerate().map(|(name, ask)| group(name, ask)).collect();
                    let mut shape = Shape::new("n".into(), "q".into(), tasks);
                    shape.min_available = least.min(shape.task_count() as u32);
                    shape.arrangement = if spread { Arrangement::Spread } else { Arrangement::Pack };
                    let traits: Vec<Traits> = specs.iter().map(traits).collect();
                    let demand = Demand::of(&shape, |_, group| filters.acquire(group, traits.iter().map(Some)));
                    let mut walk = Walk { rooms: Cow::Owned(field.rooms.clone()), filters: &filters };
                    let walked = pack(&demand, &mut walk);
                    prop_assert_eq!(&walk.rooms[..], &field.rooms[..], "packing takes nothing");
                    // Often enough that an order is made at once.
                    for group in &demand.groups {
                        for _ in 0..WALKS {
                            field.bring_up_to_date(group.filter, filters.get(group.filter));
                        }
                        prop_assert!(field.order(group.filter).is_some());
                    }
                    let found = pack(&demand, &mut Search { field: &mut field, filters: &filters });
                    prop_assert_eq!(&found, &walked);
                    // A filter that names GPUs goes with its last user, and its order with it.
                    searched += usize::from(!demand.is_named);
                    if let Ok(packing) = found {
                        check(&demand, &packing, &field.rooms, &filters, &specs);
                        if start {
                            let mut rooms = field.rooms.clone();
                            take(&mut rooms, &demand, &packing);
                            (0..rooms.len()).for_each(|node| field.set(node, rooms[node]));
                        }
                    }
                    for group in &demand.groups {
                        filters.release(group.filter).into_iter().for_each(|gone| field.forget(gone));
                    }
                }
            }
            prop_assert!(field.is_consistent(&filters));
        }
        prop_assert!(searched == 0 || field.orders > 0);
    }
}

/// What is placed fits, is enough, and is where its constraints allow.
fn check(demand: &Demand, packing: &crate::scheduler::place::Packing, rooms: &[Room], filters: &Filters, specs: &[Spec]) {
    let placed: u64 = packing.iter().map(|share| u64::from(share.count)).sum();
    assert!((demand.least..=demand.tasks).contains(&placed));
    for (node, room) in rooms.iter().enumerate() {
        let mine = || packing.iter().filter(|share| share.node == node);
        let sum =
            |each: fn(&Group) -> u64| mine().map(|share| each(&demand.groups[share.group]) * u64::from(share.count)).sum::<u64>();
        assert!(sum(|group| group.cpu) <= room.cpu && sum(|group| group.memory) <= room.memory);
        assert!(room.open || mine().next().is_none());
        for lane in 0..LANES {
            assert!(mine().map(|share| share.gpus.of(1 << lane)).sum::<u32>() <= room.gpus.of(1 << lane));
        }
        for share in mine() {
            let group = &demand.groups[share.group];
            let mask = filters.get(group.filter).fit(node).unwrap();
            assert_eq!(share.gpus.of(mask), group.gpus * share.count, "{:?}", specs[node]);
            assert_eq!(share.gpus.total(), group.gpus * share.count);
        }
    }
}

#[test]
fn an_order_is_made_only_where_it_pays() {
    let room = Room { cpu: 4, memory: 4, gpus: Lanes::default(), named: 0, has_gpus: false, open: true };
    let searches = |nodes: usize, times: u32| {
        let mut filters = Filters::new();
        let mut field = Field::new(Rooms::new(vec![room; nodes]));
        for at in 0..nodes {
            filters.update(at, Some(&Traits::default()));
        }
        let shape = Shape::new("n".into(), "q".into(), vec![group(0, (1, 1, 1, 0, 9))]);
        let demand = Demand::of(&shape, |_, group| filters.acquire(group, std::iter::empty()));
        for _ in 0..times {
            pack(&demand, &mut Search { field: &mut field, filters: &filters }).unwrap();
        }
        field.orders
    };
    assert_eq!((searches(FEW, 1000), searches(1000, WALKS - 1), searches(1000, WALKS)), (0, 0, 1));
}

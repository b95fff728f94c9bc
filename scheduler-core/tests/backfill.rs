//! The blocked head has a reservation: others start beside it only if that cannot delay it, and it cannot starve.

mod common;

use common::{GRACE_S, World, at, job, node, queue};
use scheduler_core::event::Event;

const NONE: [u64; 0] = [];

/// Four cores, three of them taken by job 1 until 100 s (and 10 s grace); job 2, the head, needs all four.
fn blocked_until_110() -> World {
    let mut world = World::small(4, 0);
    world.submit(&job(1).asks(1, 3, 0).limit(100), at(0));
    assert_eq!(world.run(at(0)), [1]);
    world.submit(&job(2).asks(4, 1, 0), at(1));
    assert_eq!(world.plan(at(1)), NONE);
    world
}

#[test]
fn what_ends_before_the_reservation_may_pass() {
    let mut world = blocked_until_110();
    world.submit(&job(3), at(2));
    assert_eq!(world.plan(at(10)), NONE, "no limit: it would be in the way");
    world.submit(&job(4).limit(91), at(2));
    assert_eq!(world.plan(at(10)), NONE, "one second too long, its grace counted");
    world.submit(&job(5).limit(90), at(2));
    assert_eq!(world.run(at(10)), [5]);
    world.done(1, at(60));
    assert_eq!(world.plan(at(60)), NONE, "the head waits for job 5 now");
    world.done(5, at(110));
    assert_eq!(world.plan(at(110)), [2], "as promised");
}

#[test]
fn the_same_job_does_not_pass_once_time_has_gone_by() {
    let mut world = blocked_until_110();
    world.submit(&job(5).limit(90), at(2));
    assert_eq!(world.plan(at(11)), NONE);
}

#[test]
fn what_fits_beside_the_head_may_pass_for_any_time() {
    let mut world = World::small(4, 0);
    world.submit(&job(1).asks(1, 3, 0).limit(100), at(0));
    assert_eq!(world.run(at(0)), [1]);
    world.submit(&job(2).asks(1, 3, 0), at(1));
    world.submit(&job(3), at(2));
    world.submit(&job(4), at(3));
    assert_eq!(world.run(at(3)), [3], "the head needs three of the four cores");
    world.done(1, at(50));
    assert_eq!(world.plan(at(50)), [2]);
}

#[test]
fn a_head_behind_runs_without_limits_blocks_what_it_needs() {
    let mut world = World::small(4, 0);
    world.submit(&job(1).asks(1, 3, 0), at(0));
    assert_eq!(world.run(at(0)), [1]);
    world.submit(&job(2).asks(4, 1, 0), at(1));
    for number in 3..10 {
        world.submit(&job(number).limit(1), at(2));
    }
    assert_eq!(world.plan(at(2)), NONE, "nobody knows when the head can start, so nothing of it is lent");
    world.done(1, at(9));
    assert_eq!(world.run(at(9)), [2]);
}

#[test]
fn an_endless_stream_of_small_jobs_does_not_starve_a_gang() {
    let mut world = World::new(vec![queue("q", 0)], vec![node("a", 4, 0), node("b", 4, 0)]);
    let mut number = 0;
    let mut running = Vec::new();
    for _ in 0..8 {
        number += 1;
        world.submit(&job(number), at(0));
    }
    running.extend(world.run(at(0)));
    world.submit(&job(1000).asks(1, 4, 0), at(0));
    // One run ends each second, and two more small jobs ask; half of them have no limit.
    for second in 1.. {
        assert!(second < 50, "the gang starves");
        for limit in [false, true] {
            number += 1;
            world.submit(&if limit { job(number).limit(5) } else { job(number) }, at(second));
        }
        world.done(running.remove(usize::try_from(second).unwrap_or(0) * 3 % running.len()), at(second));
        let started = world.run(at(second));
        running.extend(&started);
        if started.contains(&1000) {
            break;
        }
    }
}

#[test]
fn only_the_reserved_node_is_kept_free() {
    let mut world = World::new(vec![queue("q", 0)], vec![node("a", 4, 2), node("b", 4, 2)]);
    world.submit(&job(1).asks(1, 1, 1).limit(100), at(0));
    world.submit(&job(2).asks(1, 1, 2).limit(500), at(0));
    assert_eq!(world.run(at(0)), [1, 2]);
    world.submit(&job(3).asks(1, 1, 2), at(1));
    world.submit(&job(4).asks(1, 1, 1), at(2));
    assert_eq!(world.plan(at(2)), NONE, "the other GPU of node a is the head's at 110 s");
    world.submit(&job(5).asks(1, 2, 0), at(3));
    assert_eq!(world.run(at(3)), [5], "cores are left beside the head on either node");
    world.done(2, at(4));
    assert_eq!(world.run(at(4)), [3, 4], "the head took node b, so node a is nobody's");
}

#[test]
fn a_run_that_is_being_ended_counts_until_its_deadline() {
    let mut world = World::small(4, 0);
    world.submit(&job(1).asks(1, 3, 0), at(0));
    assert_eq!(world.run(at(0)), [1]);
    world.submit(&job(2).asks(4, 1, 0), at(1));
    world.handle(1, Event::Cancel { by: "u".into() }, at(5));
    world.submit(&job(3).limit(1), at(5));
    assert_eq!(world.plan(at(5)), NONE, "1 s and its grace are longer than the grace of job 1");
    assert_eq!(GRACE_S, 10);
    world.done(1, at(6));
    assert_eq!(world.run(at(6)), [2]);
}

#[test]
fn what_can_never_run_here_reserves_nothing() {
    let mut world = World::small(4, 0);
    let orphan = job(1).asks(1, 64, 0);
    world.core.restore(orphan.live(common::queued(at(0))), at(0)).unwrap_or_else(|error| panic!("{error}"));
    world.submit(&job(2), at(1));
    assert_eq!(world.plan(at(1)), [2]);
    assert_eq!(world.state(1), Some(scheduler_core::state::StateKind::Queued), "nor is it lost");
}

#[test]
fn a_pass_gives_up_after_its_number_of_kinds() {
    let mut small = common::config(vec![queue("q", 0)], vec![node("a", 8, 0)]);
    small.scan_limit = 2;
    let Ok(core) = scheduler_core::Scheduler::new(small) else { panic!() };
    let mut world = World { core };
    world.submit(&job(1).asks(1, 7, 0).limit(10), at(0));
    assert_eq!(world.run(at(0)), [1]);
    for number in 2..5 {
        world.submit(&job(number).asks(1, number, 0), at(1));
    }
    world.submit(&job(9).limit(1), at(1));
    assert_eq!(world.plan(at(1)), NONE, "jobs 2 and 3 were looked at");
    world.done(1, at(2));
    assert_eq!(world.run(at(2)), [2, 3, 9], "job 4 waits for job 2 and leaves a core then");
}

#[test]
fn strict_order_lets_nobody_pass() {
    let mut world = World::strict(vec![queue("q", 0)], vec![node("a", 4, 0)]);
    world.submit(&job(1).asks(1, 3, 0).limit(100), at(0));
    assert_eq!(world.run(at(0)), [1]);
    world.submit(&job(2).asks(4, 1, 0), at(1));
    world.submit(&job(3).limit(1), at(2));
    assert_eq!(world.plan(at(2)), NONE, "with backfill job 3 would start");
    world.done(1, at(50));
    assert_eq!(world.run(at(50)), [2]);
    world.submit(&job(4).priority(1), at(51));
    world.done(2, at(60));
    assert_eq!(world.run(at(60)), [4, 3], "the order itself is the same");
}

//! Every executor against the suite: here the local one, also where it can watch no task through a descriptor.

use crate::site::Site;
use crate::suite;

macro_rules! conformance {
    ($($case:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let site = Site::new();
                suite::$case(site.daemon().await).await;
            }
        )*

        mod without_descriptors {
            use super::{Site, suite};

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let mut site = Site::new();
                    site.runner_args.extend(["--descriptors", "0"].map(Into::into));
                    suite::$case(site.daemon().await).await;
                }
            )*
        }
    };
}

conformance! {
    start_is_idempotent,
    exits_are_told,
    programs_that_cannot_be_started,
    orders_that_make_no_sense,
    working_folder,
    environment_and_streams,
    a_failing_task_ends_the_others,
    all_tasks_start_or_none,
    several_tasks_succeed,
    stop_asks_first,
    stop_kills_who_does_not_listen,
    stop_overtakes_start,
    stop_of_nothing,
    descendants_are_ended,
    stop_reaches_descendants,
    runs_do_not_mix,
    forget,
    many_short_runs,
}

//! The jobs of a soak and what their users do afterwards: varied, seeded, each with an end that can be checked.
//!
//! Every task appends `b JOB ATTEMPT TASK` when it begins and `e JOB ATTEMPT TASK` when it comes to its end to one file; an append of a
//! line is atomic, so the file says what really ran, whatever the daemon says.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::body::Random;

/// How a job ends if it is left alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ends {
    /// All of its tasks with 0.
    Succeeds,
    /// With this exit code.
    Fails(i32),
    /// By this signal.
    Dies(i32),
    /// By its time limit.
    RunsOver,
}

/// What its user does with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wish {
    /// Nothing.
    Leave,
    /// Cancel it after a while.
    Cancel(Duration),
    /// Hold it, and release it after a while.
    Hold(Duration),
    /// Release what was submitted held, after a while.
    Release(Duration),
    /// Start its run over, after a while.
    Requeue(Duration),
}

/// A job as it is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Asked {
    /// How it ends by itself.
    pub(crate) ends: Ends,
    /// Tasks of a run.
    pub(crate) tasks: u32,
    /// What becomes of it.
    pub(crate) wish: Wish,
}

fn millis(random: &mut Random, bound: u64) -> Duration {
    Duration::from_millis(random.below(bound))
}

/// The script between the two stamps, and how it ends.
fn script(random: &mut Random) -> (String, Ends) {
    match random.below(20) {
        0..=8 => (":".to_owned(), Ends::Succeeds),
        9..=11 => (format!("sleep {}.{}", random.below(2), 1 + random.below(9)), Ends::Succeeds),
        12..=13 => {
            let code = 1 + random.below(100) as i32;
            (format!("exit {code}"), Ends::Fails(code))
        }
        14 => ("kill -KILL $$".to_owned(), Ends::Dies(9)),
        15 => ("kill -TERM $$".to_owned(), Ends::Dies(15)),
        16 => ("sleep 30".to_owned(), Ends::RunsOver),
        17 => (
            "i=0; while [ $i -lt 200 ]; do echo line $i of a log that is a bit longer; i=$((i+1)); done".to_owned(),
            Ends::Succeeds,
        ),
        // Deaf to the signal that asks it to end.
        18 => (format!("trap '' TERM; sleep 0.{}", 1 + random.below(9)), Ends::Succeeds),
        _ => ("echo to stderr >&2".to_owned(), Ends::Succeeds),
    }
}

/// One job: its body, and what was asked.
pub(crate) fn job(random: &mut Random, stamps: &Path) -> (Value, Asked) {
    let (middle, ends) = script(random);
    let stamps = stamps.display();
    let stamp = |word| format!("echo {word} $FLASH_JOB_ID $FLASH_ATTEMPT $FLASH_TASK >> {stamps}");
    let script = format!("{}; {middle}; {}", stamp("b"), stamp("e"));
    let mut body = json!({
        "name": format!("soak-{}", random.below(10_000)), "command": ["/bin/sh", "-c", script], "workingDir": "/tmp",
        "resources": {"cpu": "100m"}, "priority": random.below(21) as i64 - 10,
        "labels": {"team": format!("t{}", random.below(5)), "run": format!("r{}", random.below(1_000))},
        "env": {"SEED": random.below(1 << 40).to_string()}, "stop": {"grace": "1s"}, "retry": {"maxAttempts": 5},
    });
    let queue = ["default-batch", "default-batch", "configfile-job", "configfile-interactive"][random.below(4) as usize];
    body["queue"] = queue.into();
    if ends == Ends::RunsOver {
        body["timeLimit"] = "1s".into();
    }
    let mut tasks = 1;
    if ends == Ends::Succeeds && random.below(12) == 0 {
        tasks = 2 + random.below(2) as u32;
        let command = body["command"].take();
        if let Some(body) = body.as_object_mut() {
            body.remove("command");
        }
        body["tasks"] = json!([{"name": "worker", "replicas": tasks, "command": command}]);
    }
    if random.below(30) == 0 {
        let at = jiff::Timestamp::now().checked_add(Duration::from_secs(1 + random.below(5)));
        body["startAfter"] = at.map_or(Value::Null, |at| at.to_string().into());
    }
    let wish = match random.below(40) {
        0..=2 => Wish::Cancel(millis(random, 1_500)),
        3 => Wish::Hold(millis(random, 3_000)),
        4 => {
            body["hold"] = true.into();
            Wish::Release(millis(random, 3_000))
        }
        5..=6 => Wish::Requeue(millis(random, 1_000)),
        _ => Wish::Leave,
    };
    (body, Asked { ends, tasks, wish })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::path::Path;

    use super::{Ends, Wish, job};
    use crate::body::Random;

    #[test]
    fn every_body_is_a_job_and_every_kind_comes_up() {
        let mut random = Random::new(5);
        let mut asked = Vec::new();
        for _ in 0..2_000 {
            let (body, one) = job(&mut random, Path::new("/tmp/stamps"));
            serde_json::from_value::<api::job::JobSpec>(body).unwrap();
            asked.push(one);
        }
        for ends in [Ends::Succeeds, Ends::Dies(9), Ends::Dies(15), Ends::RunsOver] {
            assert!(asked.iter().any(|one| one.ends == ends), "{ends:?}");
        }
        assert!(asked.iter().any(|one| matches!(one.ends, Ends::Fails(_)) && one.wish == Wish::Leave));
        assert!(asked.iter().any(|one| one.tasks == 3));
        let wished = |is: fn(&Wish) -> bool| asked.iter().filter(|one| is(&one.wish)).count();
        assert!(wished(|wish| matches!(wish, Wish::Cancel(_))) > 100);
        assert!(wished(|wish| matches!(wish, Wish::Requeue(_))) > 50);
        assert!(wished(|wish| matches!(wish, Wish::Hold(_))) > 20 && wished(|wish| matches!(wish, Wish::Release(_))) > 20);
    }
}

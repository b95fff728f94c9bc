//! Users of the cluster at the REST API: whose a token is, which namespace is whose, and what is said where that cannot be found out.

use std::net::SocketAddr;

use control_plane::{NodeSpec, Part};
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::common::tcp::{address, send};
use crate::common::{PATIENCE, flash};
use crate::rig::{Site, endless, job};

const TEAMS: [&str; 2] = ["team-a", "team-b"];

/// Two teams with a service account each, and a third one whose group are administrators here.
fn populate(site: &mut Site) {
    for namespace in ["team-a", "team-b", "ops"] {
        site.cluster.kubectl(&["create", "namespace", namespace]).unwrap();
        for name in ["robot", "other"] {
            site.cluster.kubectl(&["create", "serviceaccount", name, "--namespace", namespace]).unwrap();
        }
    }
    let more = ["--namespaces", "default,team-a,team-b", "--listen", "127.0.0.1:0"];
    site.daemon.extra.extend(more.map(str::to_owned));
}

fn token(site: &Site, namespace: &str, more: &[&str]) -> String {
    let create = ["create", "token", "robot", "--namespace", namespace];
    site.cluster.kubectl(&[&create, more].concat()).unwrap().trim().to_owned()
}

/// Somebody who sends this token.
struct Bearer<'a> {
    address: SocketAddr,
    token: &'a str,
}

const fn bearer(address: SocketAddr, token: &str) -> Bearer<'_> {
    Bearer { address, token }
}

impl Bearer<'_> {
    fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let (status, answer, head) = self.call_with(method, path, "", body);
        assert!(status != 401 || head.contains("www-authenticate: Bearer"), "{head}");
        (status, answer)
    }

    fn call_with(&self, method: &str, path: &str, headers: &str, body: &Value) -> (u16, Value, String) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        send(self.address, method, path, &format!("authorization: Bearer {}\r\n{headers}", self.token), &body)
    }

    fn get(&self, path: &str) -> (u16, Value) {
        self.call("GET", path, &Value::Null)
    }

    #[track_caller]
    fn submit(&self, spec: &Value) -> String {
        let (status, made) = self.call("POST", "/api/v1/jobs", spec);
        assert_eq!(status, 201, "{made}");
        made["id"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    fn refused(&self, method: &str, path: &str, body: &Value, status: u16, words: &str) {
        let (found, problem) = self.call(method, path, body);
        assert!(found == status && problem["detail"].as_str().unwrap_or_default().contains(words), "{found} {problem}");
    }
}

/// Whether any file below this folder has these bytes.
fn holds(folder: &std::path::Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, text);
        }
        std::fs::read(path).is_ok_and(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_account_has_its_namespace_and_no_other() {
    let rules =
        "[auth]\nadmin_groups = [\"system:serviceaccounts:ops\"]\nmembers = [\"system:serviceaccounts:team-b=default\"]\n";
    let Some(mut site) = Site::prepare("users of a cluster", vec![NodeSpec::plain("node-0")], rules) else { return };
    populate(&mut site);
    site.daemon.restart();
    site.until_ready(StatusCode::OK, "").await;
    let address = address(&site.daemon);
    let tokens = ["team-a", "team-b", "ops"].map(|namespace| token(&site, namespace, &[]));
    let [a, b, ops] = [&tokens[0], &tokens[1], &tokens[2]].map(|token| Bearer { address, token });

    // Who they are.
    let (_, info) = a.get("/api/v1/info");
    assert_eq!((&info["user"], &info["admin"]), (&json!("system:serviceaccount:team-a:robot"), &json!(false)), "{info}");
    assert_eq!(info["namespaces"], json!(["team-a"]));
    assert!(info["groups"].as_array().unwrap().contains(&json!("system:serviceaccounts:team-a")), "{info}");
    assert_eq!(b.get("/api/v1/info").1["namespaces"], json!(["team-b", "default"]), "its own first, then those of its groups");
    assert_eq!(ops.get("/api/v1/info").1["admin"], true);

    // What they submit is in their namespace, whether they say so or not, and in no other.
    let mut spec = endless(0);
    spec["env"]["SECRET"] = json!("of team a");
    let own = a.submit(&spec);
    let (_, shown) = a.get(&format!("/api/v1/jobs/{own}"));
    assert_eq!((&shown["spec"]["namespace"], &shown["owner"]), (&json!("team-a"), &info["user"]), "{shown}");
    site.daemon.until(&own, "running").await;
    let pods = site.cluster.kubectl(&["get", "pods", "--namespace", "team-a", "--output", "name"]).unwrap();
    assert!(pods.contains(&own), "{pods}");
    a.submit(&job(json!({"namespace": "team-a", "hold": true})));
    for namespace in ["team-b", "default", "nowhere"] {
        let spec = job(json!({"namespace": namespace}));
        a.refused("POST", "/api/v1/jobs", &spec, 403, "may submit in its own namespaces (team-a)");
        a.refused("POST", "/api/v1/jobs:batch", &json!({"jobs": [job(json!({})), spec]}), 403, "(team-a)");
    }
    let (_, all) = a.get("/api/v1/jobs");
    assert_eq!(all["items"].as_array().unwrap().len(), 2, "of a batch that was refused nothing is there: {all}");
    ops.refused("POST", "/api/v1/jobs", &job(json!({"namespace": "nowhere"})), 422, "no namespace `nowhere`");

    // Others see that it is there, and neither what is secret of it nor its output, and change nothing.
    let path = format!("/api/v1/jobs/{own}");
    let (status, seen) = b.get(&path);
    assert!(status == 200 && seen["spec"]["name"] == shown["spec"]["name"] && !seen.to_string().contains("of team a"), "{seen}");
    for action in ["cancel", "hold", "release", "requeue"] {
        b.refused("POST", &format!("{path}/{action}"), &Value::Null, 403, "is in the namespace team-a, which is none of yours");
    }
    b.refused("PATCH", &path, &json!({"priority": 7}), 403, "none of yours");
    b.refused("GET", &format!("{path}/logs"), &Value::Null, 403, "none of yours");
    b.refused("PUT", "/api/v1/queues/own", &json!({}), 403, "only members of auth.admin_groups");
    b.refused("POST", "/api/v1/nodes/node-0/drain", &json!({}), 403, "only members of auth.admin_groups");
    b.refused("POST", "/api/v1/tokens", &json!({"name": "mine"}), 403, "Unix socket");
    assert_eq!(site.daemon.job(&own).await["state"], "running");

    // Keys of two callers never meet, also when both send the same.
    let held = job(json!({"hold": true}));
    let keyed = |who: &Bearer<'_>| who.call_with("POST", "/api/v1/jobs", "idempotency-key: one\r\n", &held).1["id"].clone();
    assert!(keyed(&a) == keyed(&a) && keyed(&a) != keyed(&b));

    // Another account of the same namespace, and administrators, may.
    let colleague = site.cluster.kubectl(&["create", "token", "other", "--namespace", "team-a"]).unwrap();
    let colleague = Bearer { address, token: colleague.trim() };
    assert!(colleague.get(&path).1.to_string().contains("of team a"));
    assert_eq!(colleague.call("POST", &format!("{path}/cancel"), &Value::Null).0, 200);
    assert_eq!(site.daemon.finished(&own).await["outcome"]["by"], "system:serviceaccount:team-a:other");
    let second = a.submit(&endless(0));
    assert_eq!(ops.call("POST", &format!("/api/v1/jobs/{second}/cancel"), &Value::Null).0, 200);
    assert_eq!(ops.call("POST", "/api/v1/nodes/node-0/cordon", &json!({"reason": "fan"})).0, 200);
    let (_, used) = a.get("/api/v1/usage?by=namespace");
    assert!(used["items"].as_array().unwrap().iter().any(|row| row["namespace"] == "team-a"), "{used}");

    // The client sends such a token too, from its environment and from a file.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{}\n", tokens[1])).unwrap();
    let mut command = flash::command(&site.daemon, &["info", "--token-file", file.to_str().unwrap()]);
    let by_file = flash::ended(command.env("FLASH_SERVER", format!("http://{address}")).env("FLASH_TOKEN", &tokens[0]));
    assert!(
        by_file.out.contains("system:serviceaccount:team-b:robot") && by_file.out.contains("team-b, default"),
        "{}",
        by_file.err
    );
    let mut command = flash::command(&site.daemon, &["info", "--output", "name"]);
    let by_variable = flash::ended(command.env("FLASH_SERVER", format!("http://{address}")).env("FLASH_TOKEN", &tokens[0]));
    assert_eq!(by_variable.out.trim(), "system:serviceaccount:team-a:robot", "{}", by_variable.err);

    // No token is kept anywhere.
    assert!(site.daemon.terminate().success());
    for token in tokens.iter().map(String::as_str).chain([colleague.token]) {
        assert!(!holds(&site.daemon.dir, token));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_cannot_be_checked_is_not_called_wrong() {
    let Some(mut site) = Site::prepare("tokens of a cluster", vec![NodeSpec::plain("node-0")], "[auth]\ncache = \"1h\"\n") else {
        return;
    };
    populate(&mut site);
    site.daemon.restart();
    site.until_ready(StatusCode::OK, "").await;
    let to = address(&site.daemon);
    let info = "/api/v1/info";
    let nothing = Value::Null;
    let [a, b] = TEAMS.map(|namespace| token(&site, namespace, &[]));
    assert_eq!(bearer(to, &a).get(info).0, 200);

    // Wrong ones are refused, each time and by whoever makes them up; ours go on as before.
    let (signed, signature) = a.rsplit_once('.').unwrap();
    let unsigned = format!("{signed}.{}", signature.chars().rev().collect::<String>());
    for wrong in ["nonsense", "a.b.c", unsigned.as_str()] {
        for _ in 0..2 {
            bearer(to, wrong).refused("GET", info, &nothing, 401, "neither flashd nor the cluster takes this token");
        }
    }
    let wrong = format!("flash_{}", "A".repeat(43));
    bearer(to, &wrong).refused("GET", info, &nothing, 401, "this token is not known here");
    let (_, made) = site.daemon.post("/api/v1/tokens", json!({"name": "laptop"})).await;
    let ours = made["secret"].as_str().unwrap();
    assert_eq!(bearer(to, ours).get(info).1["admin"], true);

    // Without the right to ask, it says what gives it. Whoever is known stays known meanwhile.
    let rights = ["clusterrole", "flash-sched"];
    let role = site.cluster.kubectl(&[&["get"], &rights[..], &["--output", "json"]].concat()).unwrap();
    let mut less: Value = serde_json::from_str(&role).unwrap();
    less["rules"].as_array_mut().unwrap().retain(|rule| rule["resources"] != json!(["tokenreviews"]));
    site.cluster.kubectl_with(&["replace", "--filename", "-"], &less.to_string()).unwrap();
    let begun = std::time::Instant::now();
    loop {
        // Rights are looked up in a cache of the API server: each try is a token of its own.
        let fresh = token(&site, "team-b", &[]);
        let (status, problem) = bearer(to, &fresh).get(info);
        if status == 503 {
            let detail = problem["detail"].as_str().unwrap();
            assert!(
                detail.contains("cannot create resource \"tokenreviews\"")
                    && detail.contains("kubectl apply --server-side -k k8s")
            );
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{status} {problem}");
    }
    assert_eq!((bearer(to, &a).get(info).0, bearer(to, ours).get(info).0), (200, 200));
    less["rules"] = serde_json::from_str::<Value>(&role).unwrap()["rules"].clone();
    less["metadata"]["resourceVersion"].take();
    site.cluster.kubectl_with(&["replace", "--filename", "-"], &less.to_string()).unwrap();
    until(&bearer(to, &b), 200);

    // While the API server is away.
    if site.cluster.is_ours() {
        let late = token(&site, "team-b", &[]);
        site.cluster.kill_part(Part::ApiServer).unwrap();
        bearer(to, &late).refused("GET", info, &nothing, 503, "the token cannot be checked now: the cluster does not answer");
        assert_eq!((bearer(to, &a).get(info).0, bearer(to, ours).get(info).0), (200, 200));
        site.cluster.start_part(Part::ApiServer).unwrap();
        site.cluster.wait_ready().unwrap();
        until(&bearer(to, &late), 200);
    }

    // Too many at once are told to wait; who is known is not in their way.
    let flood = (0..1_000).map(|number| bearer(to, &format!("made-up-{number}")).get(info).0).find(|status| *status != 401);
    assert_eq!(flood, Some(429));
    assert_eq!(bearer(to, &a).get(info).0, 200);

    // With an audience, tokens of the API server are not taken, and those that were made for it are.
    assert!(site.daemon.terminate().success());
    site.daemon.extra.extend(["--auth-audiences", "flash-sched"].map(str::to_owned));
    site.daemon.restart();
    let to = address(&site.daemon);
    let meant = token(&site, "team-a", &["--audience", "flash-sched"]);
    assert_eq!(Bearer { address: to, token: &meant }.get(info).0, 200);
    assert_eq!(Bearer { address: to, token: &a }.get(info).0, 401);

    // Switched off, they are nobody's.
    assert!(site.daemon.terminate().success());
    site.daemon.extra.extend(["--auth-kubernetes=false".to_owned()]);
    site.daemon.restart();
    let to = address(&site.daemon);
    Bearer { address: to, token: &meant }.refused("GET", info, &nothing, 401, "this is not a token of flashd");
    assert!(!site.daemon.log().contains(&a) && !site.daemon.log().contains(&meant));
}

/// Asks until this is the answer.
fn until(bearer: &Bearer<'_>, wanted: u16) {
    let begun = std::time::Instant::now();
    loop {
        let (status, answer) = bearer.get("/api/v1/info");
        if status == wanted {
            return;
        }
        assert!(status == 503 && begun.elapsed() < PATIENCE, "{status} {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flash_job_is_of_its_namespace() {
    let Some(mut site) = Site::prepare("FlashJobs of tenants", vec![NodeSpec::plain("node-0")], "") else { return };
    populate(&mut site);
    site.daemon.extra.extend(["--executors", "flashjob"].map(str::to_owned));
    site.daemon.restart();
    site.until_ready(StatusCode::OK, "").await;
    let to = address(&site.daemon);
    let [a, b] = TEAMS.map(|namespace| token(&site, namespace, &[]));
    let [a, b] = [&a, &b].map(|token| Bearer { address: to, token });

    // One that was applied there is the namespace's, whoever applied it.
    let container = json!({"name": "c", "image": "any", "env": [{"name": "SIM_DURATION", "value": "2h"}]});
    let object = json!({"apiVersion": "scheduling.flash-sched.io/v1alpha1", "kind": "FlashJob",
        "metadata": {"name": "applied", "namespace": "team-a"}, "spec": {"tasks": [{"spec": {"containers": [container]}}]}});
    site.cluster.kubectl_with(&["create", "--filename", "-"], &object.to_string()).unwrap();
    let mut events = site.daemon.events("/api/v1/events?after=0&namespace=team-a").await;
    let event = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap();
    let id = event["job"].as_str().unwrap();
    site.daemon.until(id, "running").await;
    let cancel = format!("/api/v1/jobs/{id}/cancel");
    b.refused("POST", &cancel, &Value::Null, 403, "none of yours");
    assert_eq!(a.call("POST", &cancel, &Value::Null).0, 200);
    assert_eq!(site.daemon.finished(id).await["outcome"]["by"], "system:serviceaccount:team-a:robot");

    // One that came by REST becomes a FlashJob there.
    let sent = a.submit(&endless(0));
    site.daemon.until(&sent, "running").await;
    let there = site.cluster.kubectl(&["get", "flashjobs,pods", "--namespace", "team-a", "--output", "name"]).unwrap();
    assert!(there.contains(sent.rsplit('-').next().unwrap()), "{there}");
}

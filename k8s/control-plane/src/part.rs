//! The programs of a cluster, and what each is told.

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::programs::Programs;

/// A program of a cluster, in the order in which they start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Part {
    /// The database.
    Etcd,
    /// `kube-apiserver`
    ApiServer,
    /// `kube-controller-manager`: Jobs, garbage collection, namespaces, nodes and what the manifests need.
    ControllerManager,
    /// The default scheduler.
    Scheduler,
    /// Plays the kubelets.
    Kwok,
}

impl Part {
    /// All of them, in the order in which they start.
    pub const ALL: [Self; 5] = [Self::Etcd, Self::ApiServer, Self::ControllerManager, Self::Scheduler, Self::Kwok];

    /// Its name, as it is known.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Kwok => "kwok",
        }
    }

    /// The file that Go gives it.
    pub(crate) const fn file(self) -> &'static str {
        match self {
            // Called after its package.
            Self::Etcd => "server",
            other => other.name(),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Controllers that are on: those that the product meets, and those that its manifests need. The fewer, the sooner the cluster is up.
const CONTROLLERS: &str = "job-controller,garbage-collector-controller,ttl-after-finished-controller,namespace-controller,\
    cronjob-controller,pod-garbage-collector-controller,node-lifecycle-controller,taint-eviction-controller,deployment-controller,replicaset-controller,\
    disruption-controller";

/// What the programs of one cluster are told.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) programs: Programs,
    pub(crate) folder: std::path::PathBuf,
    pub(crate) etcd_port: u16,
    pub(crate) etcd_peer_port: u16,
    pub(crate) api_port: u16,
    /// More than each is told anyway.
    pub(crate) part_args: Vec<(Part, String)>,
}

impl Setup {
    /// Where the API server is.
    pub(crate) fn server(&self) -> String {
        format!("https://127.0.0.1:{}", self.api_port)
    }

    /// Where a part writes what it has to say.
    pub(crate) fn log(&self, part: Part) -> std::path::PathBuf {
        self.folder.join(format!("{part}.log"))
    }

    /// The program with its arguments, writing to its log.
    pub(crate) fn command(&self, part: Part) -> std::io::Result<Command> {
        let log = std::fs::File::options().create(true).append(true).open(self.log(part))?;
        let mut command = Command::new(self.programs.path(part.file()));
        command.current_dir(&self.folder).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.args(self.args(part)).args(self.part_args.iter().filter(|(of, _)| *of == part).map(|(_, arg)| arg));
        Ok(command)
    }

    fn args(&self, part: Part) -> Vec<String> {
        let at = |name: &str| self.folder.join(name);
        let kubeconfig = flag("kubeconfig", &at("admin.kubeconfig"));
        let etcd = format!("http://127.0.0.1:{}", self.etcd_port);
        let peer = format!("http://127.0.0.1:{}", self.etcd_peer_port);
        let own = |flags: &[&str]| flags.iter().map(|flag| format!("--{flag}")).collect::<Vec<_>>();
        let key = at("service-account.key");
        match part {
            Part::Etcd => [
                own(&["unsafe-no-fsync", "log-level=error", "name=default"]),
                vec![
                    flag("data-dir", &at("etcd")),
                    format!("--listen-client-urls={etcd}"),
                    format!("--advertise-client-urls={etcd}"),
                    format!("--listen-peer-urls={peer}"),
                    format!("--initial-advertise-peer-urls={peer}"),
                    format!("--initial-cluster=default={peer}"),
                ],
            ]
            .concat(),
            Part::ApiServer => [
                own(&[
                    "bind-address=127.0.0.1",
                    "advertise-address=127.0.0.1",
                    "authorization-mode=Node,RBAC",
                    "service-account-issuer=https://kubernetes.default.svc",
                    "service-cluster-ip-range=10.0.0.0/24",
                    // Pods need no token: their kubelet is played.
                    "disable-admission-plugins=ServiceAccount",
                    "endpoint-reconciler-type=none",
                ]),
                vec![
                    format!("--etcd-servers={etcd}"),
                    format!("--secure-port={}", self.api_port),
                    flag("tls-cert-file", &at("server.crt")),
                    flag("tls-private-key-file", &at("server.key")),
                    flag("token-auth-file", &at("tokens.csv")),
                    flag("service-account-key-file", &at("service-account.pub")),
                    flag("service-account-signing-key-file", &key),
                    flag("cert-dir", &at("made")),
                ],
            ]
            .concat(),
            Part::ControllerManager => [
                own(&["leader-elect=false", "use-service-account-credentials=false", "secure-port=0"]),
                vec![
                    kubeconfig,
                    format!("--controllers={CONTROLLERS}"),
                    flag("service-account-private-key-file", &key),
                    flag("root-ca-file", &at("ca.crt")),
                ],
            ]
            .concat(),
            Part::Scheduler => [own(&["leader-elect=false", "secure-port=0"]), vec![kubeconfig]].concat(),
            Part::Kwok => [
                own(&["manage-all-nodes=true", "node-lease-duration-seconds=40"]),
                vec![kubeconfig, flag("config", &at("stages.yaml"))],
            ]
            .concat(),
        }
    }
}

fn flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}

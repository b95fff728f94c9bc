//! Users of the cluster: who bears a token of it, and what that user may do here.
//!
//! Invariants: a token is known by its hash alone, and its text is dropped with the request. An answer is remembered for a short while: one that
//! takes the token as long as `auth.cache` says, one that refuses it shorter. What is remembered is bounded, and what was refused never takes
//! the place of what was taken. The API server is asked about a token once at a time, and about all of them so often a second at most. A token that
//! could not be checked is never said to be wrong.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api::codes;
use executors::kubernetes::{ReviewError, Reviewed, review};
use kube::Client;
use scheduler_core::ids::Name;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::problem::{ApiError, ApiResult};
use crate::backend::{Caller, Membership, NO_UID, Via};
use crate::config::Auth as Settings;
use crate::gpus::duration;
use crate::names;

/// Answers of each kind that are remembered at most.
const REMEMBERED: usize = 1_024;
/// How long it is remembered that a token was refused.
const REFUSED_FOR: Duration = Duration::from_secs(5);
/// How long nobody else is asked after the API server could not be.
const AWAY_FOR: Duration = Duration::from_secs(1);
/// Questions to the API server: so many a second, and so many at once after a pause.
const RATE: (f64, f64) = (20.0, 100.0);
/// Tokens that are asked about at one time. One token is always in the same lane, and so asked about once.
const LANES: usize = 16;
/// Longest token in bytes.
const TOKEN_BYTES: usize = 16 << 10;
/// What the user name of a service account begins with.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

type Hash = [u8; 32];

/// Answers that are used again for a while; the one that was used longest ago goes first.
struct Memory<T> {
    entries: HashMap<Hash, Entry<T>>,
    uses: u64,
}

struct Entry<T> {
    value: T,
    until: Instant,
    used: u64,
}

impl<T> Default for Memory<T> {
    fn default() -> Self {
        Self { entries: HashMap::new(), uses: 0 }
    }
}

impl<T: Clone> Memory<T> {
    fn get(&mut self, hash: &Hash, now: Instant) -> Option<T> {
        self.uses += 1;
        let entry = self.entries.get_mut(hash).filter(|entry| now < entry.until)?;
        entry.used = self.uses;
        Some(entry.value.clone())
    }

    fn put(&mut self, hash: Hash, value: T, until: Instant, now: Instant) {
        self.uses += 1;
        if self.entries.len() >= REMEMBERED && !self.entries.contains_key(&hash) {
            self.entries.retain(|_, entry| now < entry.until);
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used).map(|(hash, _)| *hash);
            if let Some(oldest) = oldest.filter(|_| self.entries.len() >= REMEMBERED) {
                self.entries.remove(&oldest);
            }
        }
        self.entries.insert(hash, Entry { value, until, used: self.uses });
    }
}

/// How many questions may be asked now.
struct Allowance {
    left: f64,
    at: Instant,
}

impl Allowance {
    fn take(&mut self, now: Instant) -> bool {
        let (a_second, most) = RATE;
        self.left = (self.left + now.saturating_duration_since(self.at).as_secs_f64() * a_second).min(most);
        self.at = now;
        let enough = self.left >= 1.0;
        self.left -= f64::from(u8::from(enough));
        enough
    }
}

struct Known {
    taken: Memory<Arc<Caller>>,
    refused: Memory<String>,
    allowance: Allowance,
    away: Option<(Instant, String)>,
}

/// Recognises users of a cluster.
pub struct ClusterAuth {
    client: Client,
    rules: Rules,
    keep: Duration,
    known: Mutex<Known>,
    lanes: [tokio::sync::Mutex<()>; LANES],
}

impl ClusterAuth {
    /// Asks this cluster, by these rules.
    pub fn new(client: Client, settings: &Settings) -> Self {
        let (_, most) = RATE;
        let allowance = Allowance { left: most, at: Instant::now() };
        let known = Known { taken: Memory::default(), refused: Memory::default(), allowance, away: None };
        Self {
            client,
            rules: Rules::of(settings),
            keep: duration(settings.cache),
            known: Mutex::new(known),
            lanes: std::array::from_fn(|_| tokio::sync::Mutex::default()),
        }
    }

    /// Who bears this token.
    ///
    /// # Errors
    /// `401` where it is nobody's, `503` where that cannot be found out now, `429` where too many ask.
    pub async fn caller(&self, token: &str) -> ApiResult<Arc<Caller>> {
        if token.is_empty() || token.len() > TOKEN_BYTES {
            return Err(refused("no token of a cluster is like that"));
        }
        let hash: Hash = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.remembered(&hash) {
            return known;
        }
        let lane = self.lanes.get(usize::from(hash.first().copied().unwrap_or_default()) % LANES);
        let _turn = match lane {
            Some(lane) => Some(lane.lock().await),
            None => None,
        };
        // Who was first in this lane may have asked about the same.
        if let Some(known) = self.remembered(&hash) {
            return known;
        }
        if !self.lock().allowance.take(Instant::now()) {
            return Err(ApiError::new(codes::BUSY, "too many tokens are being checked with the cluster; try again"));
        }
        let answer = review(&self.client, token, &self.rules.audiences).await;
        self.remember(hash, answer)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self, hash: &Hash) -> Option<ApiResult<Arc<Caller>>> {
        let now = Instant::now();
        let mut known = self.lock();
        if let Some(caller) = known.taken.get(hash, now) {
            return Some(Ok(caller));
        }
        if let Some(why) = known.refused.get(hash, now) {
            return Some(Err(refused(&why)));
        }
        known.away.as_ref().filter(|(until, _)| now < *until).map(|(_, why)| Err(unasked(why)))
    }

    fn remember(&self, hash: Hash, answer: Result<Reviewed, ReviewError>) -> ApiResult<Arc<Caller>> {
        let now = Instant::now();
        let mut known = self.lock();
        match answer {
            Ok(reviewed) => {
                let caller = Arc::new(self.rules.caller(reviewed));
                known.taken.put(hash, Arc::clone(&caller), now + self.keep, now);
                Ok(caller)
            }
            Err(ReviewError::Refused(why)) => {
                tracing::debug!(why, "a token was refused by the cluster");
                let error = refused(&why);
                known.refused.put(hash, why, now + REFUSED_FOR.min(self.keep), now);
                Err(error)
            }
            Err(ReviewError::Unasked(why)) => {
                tracing::warn!(why, "a token could not be checked with the cluster");
                let error = unasked(&why);
                known.away = Some((now + AWAY_FOR, why));
                Err(error)
            }
        }
    }
}

fn refused(why: &str) -> ApiError {
    ApiError::new(codes::UNAUTHENTICATED, format!("neither flashd nor the cluster takes this token: {why}"))
}

fn unasked(why: &str) -> ApiError {
    ApiError::new(codes::UNAVAILABLE, format!("the token cannot be checked now: {why}"))
}

/// What users of the cluster may do here.
struct Rules {
    audiences: Vec<String>,
    admin_groups: Vec<String>,
    members: Vec<(String, Name)>,
}

impl Rules {
    fn of(settings: &Settings) -> Self {
        Self {
            audiences: settings.audiences.clone(),
            admin_groups: settings.admin_groups.clone(),
            members: settings.members.iter().map(|member| (member.group.clone(), member.namespace.as_str().into())).collect(),
        }
    }

    fn caller(&self, Reviewed { user, groups }: Reviewed) -> Caller {
        let mut namespaces: Vec<Name> = account_namespace(&user).map(Name::from).into_iter().collect();
        for (group, namespace) in &self.members {
            if groups.contains(group) && !namespaces.contains(namespace) {
                namespaces.push(namespace.clone());
            }
        }
        let admin = groups.iter().any(|group| self.admin_groups.contains(group));
        let groups = groups.iter().map(|group| Name::from(group.as_str())).collect();
        let via = Via::Cluster(Arc::new(Membership { groups, namespaces }));
        Caller { user: Name::from(user), uid: NO_UID, gid: NO_UID, home: None, admin, via }
    }
}

/// The namespace that a service account is in; nobody else's name says one.
fn account_namespace(user: &str) -> Option<&str> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT)?.split_once(':')?;
    (names::is_label(namespace) && !name.is_empty() && !name.contains(':')).then_some(namespace)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn hash(number: usize) -> Hash {
        Sha256::digest(number.to_le_bytes()).into()
    }

    #[test]
    fn what_is_remembered_ends_and_is_bounded() {
        let begin = Instant::now();
        let until = begin + Duration::from_secs(9);
        let mut memory = Memory::default();
        for number in 0..REMEMBERED {
            memory.put(hash(number), number, until, begin);
        }
        // The first is used again, so the second is the one that goes.
        assert_eq!(memory.get(&hash(0), begin), Some(0));
        memory.put(hash(REMEMBERED), REMEMBERED, until, begin);
        assert_eq!((memory.entries.len(), memory.get(&hash(0), begin), memory.get(&hash(1), begin)), (REMEMBERED, Some(0), None));
        assert_eq!(memory.get(&hash(0), until), None, "it has ended");
        memory.put(hash(1), 1, until + Duration::from_secs(9), until);
        assert_eq!(memory.entries.len(), 1, "what has ended goes first");
    }

    #[test]
    fn questions_are_bounded_and_come_back_with_time() {
        let begin = Instant::now();
        let (a_second, most) = RATE;
        let mut allowance = Allowance { left: most, at: begin };
        let asked =
            |allowance: &mut Allowance, at| std::iter::repeat_with(|| allowance.take(at)).take(1_000).filter(|ok| *ok).count();
        assert_eq!(asked(&mut allowance, begin), most as usize);
        assert_eq!(asked(&mut allowance, begin + Duration::from_secs(1)), a_second as usize);
        assert_eq!(asked(&mut allowance, begin + Duration::from_hours(1)), most as usize, "a long pause saves up no more");
    }

    #[test]
    fn a_service_account_belongs_to_its_namespace_and_groups_to_theirs() {
        let settings = Settings {
            kubernetes: true,
            audiences: Vec::new(),
            admin_groups: vec!["ops".to_owned()],
            members: ["oidc:red=team-a", "oidc:red=team-b", "blue=team-c"].map(|text| text.parse().unwrap()).to_vec(),
            cache: api::quantity::Duration(1_000_000),
        };
        let rules = Rules::of(&settings);
        let caller = |user: &str, groups: &[&str]| {
            rules.caller(Reviewed { user: user.to_owned(), groups: groups.iter().map(|group| (*group).to_owned()).collect() })
        };
        let own = |caller: &Caller| caller.membership().unwrap().namespaces.iter().map(ToString::to_string).collect::<Vec<_>>();
        let robot = caller("system:serviceaccount:team-b:ci", &["oidc:red"]);
        assert_eq!((own(&robot), robot.admin, robot.uid), (vec!["team-b".to_owned(), "team-a".to_owned()], false, NO_UID));
        assert!(caller("eve", &["ops"]).admin && own(&caller("eve", &["ops"])).is_empty());
        for user in [
            "system:serviceaccount:team-a",
            "system:serviceaccount::x",
            "system:serviceaccount:a:",
            "system:serviceaccount:a:b:c",
            "x:system:serviceaccount:a:b",
            "system:serviceaccount:A/b:c",
        ] {
            assert_eq!(account_namespace(user), None, "{user}");
        }
        let owner = |uid| store::Owner { user: "ada".into(), uid };
        assert!(robot.may_act_on(&"team-a".into(), &owner(7)) && !robot.may_act_on(&"team-c".into(), &owner(NO_UID)));
        assert!(!robot.may_act_for(NO_UID), "the number of nobody is nobody's");
        assert_ne!(robot.key_scope(), caller("eve", &[]).key_scope());
    }
}

//! Whose a token is: asked of the API server by a TokenReview.
//!
//! What must hold:
//! - The token goes to the API server and nowhere else: not into a log, not into an error.
//! - Where audiences are asked for, one of them has to be confirmed by the answer: a server that knows nothing of audiences confirms none.
//! - That a token is refused, and that nobody could be asked, are told apart.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::timeout;

use super::error::{Meaning, meaning, said};

/// How long the API server may take.
const ANSWER: Duration = Duration::from_secs(5);
/// Characters of what the API server says of a token that is not taken.
const REASON_CHARS: usize = 300;
/// Longest name of a user, and of a group.
const NAME_CHARS: usize = 1_024;
/// Groups of a user that are looked at.
const GROUPS: usize = 1_024;

/// Whose a token is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reviewed {
    /// The user's name, as in `system:serviceaccount:NAMESPACE:NAME`.
    pub user: String,
    /// The user's groups.
    pub groups: Vec<String>,
}

/// Why nobody is known by a token.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReviewError {
    /// The cluster does not take it; why.
    #[error("{0}")]
    Refused(String),
    /// It could not be asked; why, and what mends it.
    #[error("{0}")]
    Unasked(String),
}

/// Asks whose this token is. It has to be meant for one of these audiences; where there are none, for the API server itself.
///
/// # Errors
/// It is nobody's, or the API server could not say.
pub async fn review(client: &Client, token: &str, audiences: &[String]) -> Result<Reviewed, ReviewError> {
    let spec = TokenReviewSpec { token: token.to_owned(), audiences: (!audiences.is_empty()).then(|| audiences.to_vec()) };
    let asked = TokenReview { spec, ..TokenReview::default() };
    let api: Api<TokenReview> = Api::all(client.clone());
    match timeout(ANSWER, api.create(&PostParams::default(), &asked)).await {
        Ok(Ok(answer)) => judge(answer.status.unwrap_or_default(), token, audiences),
        Ok(Err(error)) => Err(ReviewError::Unasked(match meaning(&error) {
            Meaning::Later(detail) => format!("the cluster does not answer: {detail}"),
            _ => said(&error),
        })),
        Err(_) => Err(ReviewError::Unasked(format!("the cluster does not answer within {} s", ANSWER.as_secs()))),
    }
}

fn judge(status: TokenReviewStatus, token: &str, audiences: &[String]) -> Result<Reviewed, ReviewError> {
    let refused = |why: &str| Err(ReviewError::Refused(why.to_owned()));
    if !status.authenticated.unwrap_or(false) {
        let why = status.error.unwrap_or_default();
        let why: String = why.chars().filter(|char| !char.is_control()).take(REASON_CHARS).collect();
        return refused(if why.is_empty() || why.contains(token) {
            "it is not one of its tokens, or it has ended"
        } else {
            &why
        });
    }
    if !audiences.is_empty() && !status.audiences.iter().flatten().any(|audience| audiences.contains(audience)) {
        return refused(&format!("it is not meant for {}", audiences.join(" or ")));
    }
    let user = status.user.unwrap_or_default();
    let fits = |name: &String| (1..=NAME_CHARS).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    let Some(name) = user.username.filter(fits) else { return refused("its user has no name that could be used") };
    let groups = user.groups.unwrap_or_default().into_iter().filter(fits).take(GROUPS).collect();
    Ok(Reviewed { user: name, groups })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn judged(status: Value, audiences: &[&str]) -> Result<Reviewed, ReviewError> {
        let audiences: Vec<String> = audiences.iter().map(|audience| (*audience).to_owned()).collect();
        judge(serde_json::from_value(status).unwrap(), "secret", &audiences)
    }

    #[test]
    fn an_answer_is_believed_only_if_it_is_whole() {
        let user = json!({"username": "ada", "groups": ["a", "b", "line\nbreak", ""]});
        let known = judged(json!({"authenticated": true, "user": user}), &[]).unwrap();
        assert_eq!((known.user.as_str(), known.groups), ("ada", vec!["a".to_owned(), "b".to_owned()]));
        for status in [
            json!({}),
            json!({"user": user}),
            json!({"authenticated": false, "user": user}),
            json!({"authenticated": true}),
            json!({"authenticated": true, "user": {"username": ""}}),
            json!({"authenticated": true, "user": {"username": "a\nb"}}),
        ] {
            assert!(matches!(judged(status.clone(), &[]), Err(ReviewError::Refused(_))), "{status}");
        }
    }

    #[test]
    fn an_audience_has_to_be_confirmed() {
        let status = |audiences: &[&str]| json!({"authenticated": true, "user": {"username": "ada"}, "audiences": audiences});
        assert!(judged(status(&["flashd", "x"]), &["y", "flashd"]).is_ok());
        for confirmed in [&["other"][..], &[]] {
            assert!(matches!(judged(status(confirmed), &["flashd"]), Err(ReviewError::Refused(_))), "{confirmed:?}");
        }
        let silent = json!({"authenticated": true, "user": {"username": "ada"}});
        assert!(judged(silent, &["flashd"]).unwrap_err().to_string().contains("not meant for flashd"));
    }

    #[test]
    fn a_reason_never_repeats_the_token() {
        let said = |error: &str| judged(json!({"authenticated": false, "error": error}), &[]).unwrap_err().to_string();
        assert_eq!(said("token has expired"), "token has expired");
        assert!(!said("bad token secret").contains("secret"));
    }
}

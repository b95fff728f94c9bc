//! Label and field selectors, as `kubectl` has them.
//!
//! Invariant: what is not understood is refused with what is; a selector never silently selects more than it says.

use scheduler_core::state::StateKind;
use store::{JobQuery, LabelMatch, OutcomeKind};

use super::problem::{ApiError, ApiResult};
use crate::names;

/// Terms of one selector.
const TERMS: usize = 32;

const LABEL_FORMS: &str = "write terms such as `app=web`, `app==web`, `app!=web`, `app` or `!app`, separated by commas";

/// The terms of a selector, of which there are not too many.
fn terms<'a>(text: &'a str, field: &str) -> ApiResult<Vec<&'a str>> {
    let terms: Vec<_> = text.split(',').map(str::trim).filter(|term| !term.is_empty()).collect();
    if terms.len() > TERMS {
        return Err(ApiError::invalid(field, format!("more than {TERMS} terms")));
    }
    Ok(terms)
}

/// `labelSelector`.
pub fn labels(text: &str) -> ApiResult<Vec<LabelMatch>> {
    terms(text, "labelSelector")?.into_iter().map(label).collect()
}

fn label(term: &str) -> ApiResult<LabelMatch> {
    let refuse = |why: &str| ApiError::invalid("labelSelector", format!("`{term}`: {why}; {LABEL_FORMS}"));
    let key = |text: &str| {
        let key = text.trim();
        if names::is_label_key(key) { Ok(key.to_owned()) } else { Err(refuse("not a label key")) }
    };
    let value = |text: &str| {
        let value = text.trim();
        if names::is_label_value(value) { Ok(value.to_owned()) } else { Err(refuse("not a label value")) }
    };
    if let Some((left, right)) = term.split_once("!=") {
        return Ok(LabelMatch::IsNot(key(left)?, value(right)?));
    }
    if let Some((left, right)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return Ok(LabelMatch::Is(key(left)?, value(right)?));
    }
    match term.strip_prefix('!') {
        Some(rest) => Ok(LabelMatch::Absent(key(rest)?)),
        None => Ok(LabelMatch::Exists(key(term)?)),
    }
}

/// Adds `fieldSelector` to a query.
pub fn fields(text: &str, query: &mut JobQuery) -> ApiResult<()> {
    for term in terms(text, "fieldSelector")? {
        let (key, value) = term
            .split_once("==")
            .or_else(|| term.split_once('='))
            .filter(|(key, _)| !key.ends_with('!'))
            .ok_or_else(|| ApiError::invalid("fieldSelector", format!("`{term}`: write terms such as `state=queued`")))?;
        field(key.trim(), value.trim(), "fieldSelector", query)?;
    }
    Ok(())
}

/// Adds one filter with its values, separated by commas.
pub fn values(key: &str, values: &str, query: &mut JobQuery) -> ApiResult<()> {
    let list = terms(values, key)?;
    if list.is_empty() {
        return Err(ApiError::invalid(key, "empty; leave it out to see all"));
    }
    list.into_iter().try_for_each(|value| field(key, value, key, query))
}

fn field(key: &str, value: &str, at: &str, query: &mut JobQuery) -> ApiResult<()> {
    let named = |names: &mut Vec<String>| {
        names.push(value.to_owned());
        Ok(())
    };
    match key {
        "namespace" => named(&mut query.namespaces),
        "queue" => named(&mut query.queues),
        "owner" => named(&mut query.owners),
        "name" => match &query.name {
            Some(other) if other != value => Err(ApiError::invalid(at, format!("one name, not `{other}` and `{value}`"))),
            _ => {
                query.name = Some(value.to_owned());
                Ok(())
            }
        },
        "state" => {
            query.states.push(state(value, at)?);
            Ok(())
        }
        "outcome" => {
            query.outcomes.push(outcome(value, at)?);
            Ok(())
        }
        other => {
            let known = "namespace, queue, owner, name, state, outcome";
            Err(ApiError::invalid(at, format!("no field `{other}` to select by; there are: {known}")))
        }
    }
}

fn state(word: &str, at: &str) -> ApiResult<StateKind> {
    StateKind::ALL.into_iter().find(|kind| kind.as_str() == word).ok_or_else(|| {
        let known = StateKind::ALL.map(StateKind::as_str).join(", ");
        ApiError::invalid(at, format!("no state `{word}`; there are: {known}"))
    })
}

fn outcome(word: &str, at: &str) -> ApiResult<OutcomeKind> {
    match word {
        "succeeded" => Ok(OutcomeKind::Succeeded),
        "failed" => Ok(OutcomeKind::Failed),
        "cancelled" => Ok(OutcomeKind::Cancelled),
        other => Err(ApiError::invalid(at, format!("no outcome `{other}`; there are: succeeded, failed, cancelled"))),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_label_term() {
        let text = "app=web, tier==db,env!=prod,example.com/x,!gone,empty=";
        let own = str::to_owned;
        assert_eq!(
            labels(text).unwrap(),
            [
                LabelMatch::Is(own("app"), own("web")),
                LabelMatch::Is(own("tier"), own("db")),
                LabelMatch::IsNot(own("env"), own("prod")),
                LabelMatch::Exists(own("example.com/x")),
                LabelMatch::Absent(own("gone")),
                LabelMatch::Is(own("empty"), String::new()),
            ]
        );
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in ["a in (b)", "=x", "a=b=c", "!a=b", "a b", "-a", "a!", "a=é"] {
            let error = labels(text).unwrap_err();
            assert_eq!(error.problem().field.as_deref(), Some("labelSelector"), "{text}");
        }
        assert!(labels(&"a,".repeat(33)).is_err());
        for text in ["state=asleep", "colour=red", "state!=queued", "state", "name=a,name=b"] {
            assert!(fields(text, &mut JobQuery::default()).is_err(), "{text}");
        }
    }

    #[test]
    fn fields_and_parameters_mean_the_same() {
        let mut one = JobQuery::default();
        fields("state=queued,state=running,queue=default-batch,outcome=failed", &mut one).unwrap();
        let mut other = JobQuery::default();
        values("state", "queued,running", &mut other).unwrap();
        values("queue", "default-batch", &mut other).unwrap();
        values("outcome", "failed", &mut other).unwrap();
        assert_eq!((one.states, one.queues, one.outcomes), (other.states, other.queues, other.outcomes));
        assert!(values("state", "", &mut JobQuery::default()).is_err());
    }
}

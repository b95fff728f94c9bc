//! `flash hold`, `release`, `requeue`: one change, on each job that is named.
//!
//! Invariant: a job that refuses does not keep the others from being changed; the exit code is that of the first refusal.

use api::{Job, JobList};

use crate::client::Client;
use crate::commands::{job_path, ls};
use crate::error::Error;
use crate::output::Output;

pub(crate) const HOLD_EXAMPLES: &str = "Examples:
  flash hold 0199c0de-aaaa
  flash ls --mine -s queued -o name | xargs flash hold";
pub(crate) const RELEASE_EXAMPLES: &str = "Examples:
  flash release 0199c0de-aaaa
  flash ls --mine -s waiting -o name | xargs flash release";
pub(crate) const REQUEUE_EXAMPLES: &str = "Examples:
  flash requeue 0199c0de-aaaa";

/// Arguments of `flash hold`, `release` and `requeue`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Ids, or the beginnings of ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(client: &Client, verb: &str, args: &Args) -> Result<u8, Error> {
    each(client, verb, &args.ids, args.output).await
}

/// Does `verb` to every job, prints those that took it, and tells of those that did not.
pub(super) async fn each(client: &Client, verb: &str, ids: &[String], output: Output) -> Result<u8, Error> {
    // All ids are looked at before the first job is touched: a typing error changes nothing.
    let paths = ids.iter().map(|id| Ok(job_path(id)?.segment(verb))).collect::<Result<Vec<_>, Error>>()?;
    to_all(ids, output, async |at| client.post_empty(&paths[at]).await).await
}

/// Asks for every job, by its place, and goes on as [`each`] does.
pub(super) async fn to_all(ids: &[String], output: Output, ask: impl AsyncFn(usize) -> Result<Job, Error>) -> Result<u8, Error> {
    let mut changed: Vec<Job> = Vec::new();
    let mut code = 0;
    for (at, id) in ids.iter().enumerate() {
        match ask(at).await {
            Ok(job) => changed.push(job),
            // The next one would wait for the same silence.
            Err(error @ Error::NoAnswer { .. }) => return Err(error),
            Err(error) => {
                crate::output::note(&format!("error: {}: {error}", crate::table::clean(id)));
                if code == 0 {
                    code = error.exit_code();
                }
            }
        }
    }
    if !changed.is_empty() || !output.is_table() {
        let revision = changed.iter().map(|job| job.revision).max().unwrap_or(0);
        ls::print(&JobList { items: changed, next_cursor: None, revision }, output)?;
    }
    Ok(code)
}

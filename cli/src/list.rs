//! Which jobs: the filters that `ls` and the commands on many jobs share, and reading page after page.
//!
//! Invariant: a list that was cut says so; pages are read one after another from one stable snapshot, until the limit.

use api::{Job, JobList, ServerInfo};
use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::client::Client;
use crate::error::Error;
use crate::query::Query;

/// Jobs of one page at most.
const PAGE: usize = 1_000;
/// States of a job that is not over.
pub(crate) const UNFINISHED: &str = "waiting,queued,starting,running,stopping";
const STATES: [&str; 6] = ["waiting", "queued", "starting", "running", "stopping", "finished"];

/// Filters; what is not given does not matter.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Which jobs")]
pub(crate) struct Filter {
    /// In these states, separated by commas
    #[arg(short = 's', long = "state", value_delimiter = ',', value_parser = PossibleValuesParser::new(STATES))]
    pub(crate) states: Vec<String>,
    /// In this queue
    #[arg(short = 'q', long)]
    pub(crate) queue: Option<String>,
    /// In this namespace
    #[arg(long)]
    pub(crate) namespace: Option<String>,
    /// Of this user
    #[arg(long, value_name = "USER", conflicts_with = "mine")]
    pub(crate) owner: Option<String>,
    /// Your own
    #[arg(long)]
    pub(crate) mine: bool,
    /// With this name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// With these labels: `team=vision,stage!=test`
    #[arg(short = 'l', long = "selector")]
    pub(crate) selector: Option<String>,
}

/// Reads jobs, newest first: at most `limit`, all if that is 0; `next_cursor` says whether there are more. `states` and `outcome` are
/// lists with commas.
pub(crate) async fn jobs(
    client: &Client,
    filter: &Filter,
    states: Option<&str>,
    outcome: Option<&str>,
    limit: usize,
) -> Result<JobList, Error> {
    let me = if filter.mine { Some(client.get::<ServerInfo>(&Query::new("/info")).await?.user) } else { None };
    let mut all: Vec<Job> = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = if limit == 0 { PAGE } else { PAGE.min(limit - all.len()) };
        let query = Query::new("/jobs")
            .maybe("state", states)
            .maybe("outcome", outcome)
            .maybe("queue", filter.queue.as_deref())
            .maybe("namespace", filter.namespace.as_deref())
            .maybe("owner", filter.owner.as_deref().or(me.as_deref()))
            .maybe("name", filter.name.as_deref())
            .maybe("labelSelector", filter.selector.as_deref())
            .with("limit", &page.to_string())
            .maybe("cursor", cursor.as_deref());
        let list: JobList = client.get(&query).await?;
        let empty = list.items.is_empty();
        all.extend(list.items);
        cursor = list.next_cursor;
        // An empty page with a cursor would be asked for without end.
        if cursor.is_none() || empty || (limit > 0 && all.len() >= limit) {
            return Ok(JobList { items: all, next_cursor: cursor, revision: list.revision });
        }
    }
}

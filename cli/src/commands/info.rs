//! `flash info`: which server answers, and who it takes the caller for.

use api::ServerInfo;

use crate::client::Client;
use crate::error::Error;
use crate::output::Output;
use crate::query::Query;
use crate::table;

pub(crate) const EXAMPLES: &str = "Examples:
  flash info
  flash info -o json
  FLASH_TOKEN=... flash --server http://gpubox:7700 info
  flash --server http://flashd.flash-system:7700 --token-file /var/run/secrets/kubernetes.io/serviceaccount/token info";

/// Arguments of `flash info`.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn run(client: &Client, args: &Args) -> Result<u8, Error> {
    let info: ServerInfo = client.get(&Query::new("/info")).await?;
    args.output.print(
        &info,
        |info| vec![info.user.clone()],
        |info, _, _| {
            table::facts(&[
                ("flash", env!("CARGO_PKG_VERSION").to_owned()),
                ("flashd", info.version.clone()),
                ("server", client.describe()),
                ("executor", info.executor.clone()),
                ("you are", format!("{}{}", info.user, if info.admin { ", who may act on everybody's jobs" } else { "" })),
                ("namespaces", info.namespaces.join(", ")),
                ("groups", info.groups.join(", ")),
                ("revision", info.revision.to_string()),
            ])
        },
    )?;
    Ok(0)
}

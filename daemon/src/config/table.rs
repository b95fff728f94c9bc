//! Where the job table is, if it is not in the data folder.

use std::path::PathBuf;

use serde::Serialize;

use super::ConfigError;
use super::values::StoreUrl;

/// Where the job table is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Store {
    /// PostgreSQL; SQLite in the data folder where there is none. Shown without its password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<StoreUrl>,
    /// File with the password for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
}

impl Store {
    /// What was said, if it goes together.
    pub(super) fn said(url: Option<StoreUrl>, password_file: Option<PathBuf>) -> Result<Self, ConfigError> {
        let store = Self { url, password_file };
        match &store.url {
            Some(url) if url.text().contains("password=") => {
                Err(ConfigError::Contradiction("store.url: say the password in store.password_file, and not as a parameter"))
            }
            // Made again when it is used; here a wrong one is told before anything begins.
            Some(_) => store.address().map(|_| store),
            None if store.password_file.is_some() => {
                Err(ConfigError::Contradiction("store.password_file: is for store.url, which is not said"))
            }
            None => Ok(store),
        }
    }

    pub(super) fn is_local(&self) -> bool {
        self.url.is_none()
    }

    /// The server, with the password of the file where there is one; `None` for SQLite in the data folder.
    ///
    /// # Errors
    /// What is wrong with either.
    pub fn address(&self) -> Result<Option<store::Address>, ConfigError> {
        let Some(url) = &self.url else { return Ok(None) };
        let mut address: store::Address = url.text().parse()?;
        if let Some(path) = &self.password_file {
            let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
            address = address.with_password(text.trim_end_matches(['\r', '\n']));
        }
        Ok(Some(address))
    }
}

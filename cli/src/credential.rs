//! The token that says who asks over TCP: from `--token-file`, else `FLASH_TOKEN`, else the file that `FLASH_TOKEN_FILE` names.
//!
//! Invariants: a file is read anew for each request, because whoever keeps it may put another token there while a command goes on; a token is
//! in no error and in no message.

use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use hyper::header::HeaderValue;

use crate::error::Error;

/// Largest file that is taken for a token, in bytes.
const LARGEST: u64 = 64 << 10;

/// Where the token is, if there is one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Credential {
    /// Nowhere.
    None,
    /// This is what goes into the header.
    Header(HeaderValue),
    /// In this file.
    File(PathBuf),
}

fn header(token: &str, place: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.trim()))
        .map_err(|_| Error::usage(format!("{place} has characters that no token has")))?;
    value.set_sensitive(true);
    Ok(value)
}

fn read(path: &Path) -> Result<String, Error> {
    let shown = crate::table::clean(&path.display().to_string());
    let wrong = |why: &str| Error::usage(format!("token file {shown}: {why}"));
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| wrong(&error.to_string()))?;
    file.take(LARGEST + 1).read_to_string(&mut text).map_err(|error| wrong(&error.to_string()))?;
    match text.trim() {
        _ if text.len() as u64 > LARGEST => Err(wrong("too long for a token")),
        "" => Err(wrong("it is empty")),
        token => Ok(token.to_owned()),
    }
}

impl Credential {
    /// What the command line and the environment say.
    pub(crate) fn find(file: Option<&Path>, env: impl Fn(&str) -> Option<OsString>) -> Result<Self, Error> {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        if let Some(file) = file {
            return Ok(Self::File(file.to_owned()));
        }
        if let Some(token) = set("FLASH_TOKEN") {
            let text = token.to_str().ok_or_else(|| Error::usage("FLASH_TOKEN has characters that no token has"))?;
            return header(text, "FLASH_TOKEN").map(Self::Header);
        }
        Ok(set("FLASH_TOKEN_FILE").map_or(Self::None, |path| Self::File(path.into())))
    }

    /// The header of a request that is sent now.
    pub(crate) fn header(&self) -> Result<Option<HeaderValue>, Error> {
        match self {
            Self::None => Ok(None),
            Self::Header(value) => Ok(Some(value.clone())),
            Self::File(path) => header(&read(path)?, "the token file").map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn find(file: Option<&Path>, vars: &[(&str, &str)]) -> Credential {
        let value = |name: &str| vars.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value));
        Credential::find(file, value).unwrap()
    }

    #[test]
    fn what_is_said_first_counts() {
        let both = [("FLASH_TOKEN", " a\n"), ("FLASH_TOKEN_FILE", "/t")];
        assert_eq!(find(Some(Path::new("/f")), &both), Credential::File("/f".into()));
        assert_eq!(find(None, &both).header().unwrap().unwrap(), "Bearer a");
        assert_eq!(find(None, &both[1..]), Credential::File("/t".into()));
        assert_eq!(find(None, &[("FLASH_TOKEN", "")]), Credential::None);
        assert!(Credential::find(None, |_| Some("a\nb".into())).is_err());
    }

    #[test]
    fn a_file_is_read_each_time_and_never_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let credential = Credential::File(path.clone());
        assert!(credential.header().unwrap_err().to_string().contains("No such file"));
        for token in ["one", "two"] {
            std::fs::write(&path, format!("{token}\n")).unwrap();
            assert_eq!(credential.header().unwrap().unwrap(), format!("Bearer {token}"));
        }
        for bad in ["", " \n", "sec\x01ret", &"x".repeat(70_000)] {
            std::fs::write(&path, bad).unwrap();
            let error = credential.header().unwrap_err();
            assert!(error.exit_code() == 2 && !error.to_string().contains("sec"), "{error}");
        }
    }
}

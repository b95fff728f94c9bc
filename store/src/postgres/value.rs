//! Values that PostgreSQL has its own way with: texts, of which it takes none with a NUL, and ids.

use std::borrow::Cow;

use scheduler_core::ids::JobId;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Type};
use uuid::Uuid;

/// What stands before a digit for a character that cannot stand for itself.
const ESCAPE: char = '\u{10FFFF}';
const NUL: char = '0';
const ITSELF: char = '1';

/// A text as it is kept. Different texts are kept differently.
pub(super) fn kept(text: &str) -> Cow<'_, str> {
    if !text.contains(['\0', ESCAPE]) {
        return Cow::Borrowed(text);
    }
    let mut kept = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\0' => kept.extend([ESCAPE, NUL]),
            ESCAPE => kept.extend([ESCAPE, ITSELF]),
            other => kept.push(other),
        }
    }
    Cow::Owned(kept)
}

/// The text that is kept so.
pub(super) fn told(kept: &str) -> Cow<'_, str> {
    if !kept.contains(ESCAPE) {
        return Cow::Borrowed(kept);
    }
    let mut text = String::with_capacity(kept.len());
    let mut characters = kept.chars();
    while let Some(character) = characters.next() {
        match (character, character == ESCAPE) {
            (_, true) => text.push(if characters.next() == Some(NUL) { '\0' } else { ESCAPE }),
            (other, false) => text.push(other),
        }
    }
    Cow::Owned(text)
}

/// A list that restricts nothing where it is empty.
pub(super) fn kept_list(list: &[String]) -> Option<Vec<Cow<'_, str>>> {
    (!list.is_empty()).then(|| list.iter().map(|text| kept(text)).collect())
}

/// A job's identity in a column of the type `uuid`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Id(pub(super) JobId);

/// Of the types `uuid` and `uuid[]`: fixed in every PostgreSQL.
const UUID: PgTypeInfo = PgTypeInfo::with_oid(Oid(2_950));
const UUIDS: PgTypeInfo = PgTypeInfo::with_oid(Oid(2_951));

impl Type<Postgres> for Id {
    fn type_info() -> PgTypeInfo {
        UUID
    }
}

impl PgHasArrayType for Id {
    fn array_type_info() -> PgTypeInfo {
        UUIDS
    }
}

impl Encode<'_, Postgres> for Id {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(self.0.0.as_bytes());
        Ok(IsNull::No)
    }
}

impl Decode<'_, Postgres> for Id {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        Ok(Self(JobId(Uuid::from_slice(value.as_bytes()?)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_kept_without_a_nul_and_comes_back() {
        let texts = ["", "plain", "\0", "a\0b", "\u{10FFFF}", "\u{10FFFF}0", "\u{10FFFF}\0", "zażółć \u{10FFFE}"];
        for text in texts {
            assert!(!kept(text).contains('\0'), "{text:?}");
            assert_eq!(told(&kept(text)), text);
            assert_eq!(texts.iter().filter(|other| kept(other) == kept(text)).count(), 1, "{text:?}");
        }
        assert!(matches!(kept("plain"), Cow::Borrowed("plain")));
    }
}

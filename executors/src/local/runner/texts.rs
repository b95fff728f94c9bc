//! Lists of C strings, as a process is made from them: in one piece of memory each, because a short task is made of twenty.

use std::ffi::c_char;

/// The strings, each with its NUL, one behind the other.
#[derive(Default)]
pub(super) struct Texts {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl Texts {
    /// Room for so many strings of so many bytes together.
    pub(super) fn with_room(count: usize, bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes + count), starts: Vec::with_capacity(count) }
    }

    /// Adds the string of these parts; false, and nothing is added, if there is a NUL in one.
    pub(super) fn add(&mut self, parts: &[&str]) -> bool {
        if parts.iter().any(|part| part.as_bytes().contains(&0)) {
            return false;
        }
        self.starts.push(self.bytes.len());
        for part in parts {
            self.bytes.extend_from_slice(part.as_bytes());
        }
        self.bytes.push(0);
        true
    }

    /// Where the strings are, and a null pointer behind them: good as long as the texts are there and nothing is added.
    pub(super) fn pointers(&self) -> Vec<*const c_char> {
        let mut pointers = Vec::with_capacity(self.starts.len() + 1);
        pointers.extend(self.starts.iter().map(|start| self.bytes[*start..].as_ptr().cast()));
        pointers.push(std::ptr::null());
        pointers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_stand_one_behind_the_other_and_none_has_a_nul_inside() {
        let mut texts = Texts::with_room(2, 6);
        assert!(texts.add(&["A", "=", "b"]));
        assert!(!texts.add(&["c", "d\0e"]));
        assert!(texts.add(&[]));
        assert!(texts.add(&["fg"]));
        assert_eq!(texts.bytes, b"A=b\0\0fg\0");
        let base = texts.bytes.as_ptr().cast::<c_char>();
        let pointers = texts.pointers();
        assert_eq!(pointers, [base, base.wrapping_add(4), base.wrapping_add(5), std::ptr::null()]);
    }
}

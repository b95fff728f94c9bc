//! Many rows in one INSERT, in a few fixed sizes.
//!
//! In batches of 1,000 a row's share of a statement for 64 is about two thirds of what a statement of its own costs (see the decision
//! record on the store). Fixed sizes keep the number of prepared statements small, and 64 rows of the widest table stay far below the
//! number of parameters that SQLite takes.

use super::raw::{Arg, Connection, RawError};

/// Rows a statement, largest first.
const SIZES: [usize; 4] = [64, 16, 4, 1];

/// An INSERT of some rows into one table.
pub(super) struct Insert {
    columns: usize,
    /// One statement for each of [`SIZES`].
    statements: [String; 4],
}

impl Insert {
    /// From a statement for one row, whose parameters are plain `?` and whose text ends with them.
    pub(super) fn of(one_row: &str) -> Self {
        let (into, tuple) = one_row.split_once("VALUES").unwrap_or((one_row, ""));
        let tuple = tuple.trim();
        let statements = SIZES.map(|rows| format!("{into}VALUES {}", vec![tuple; rows].join(", ")));
        Self { columns: tuple.matches('?').count(), statements }
    }

    /// Inserts the rows, whose values follow each other in `args`.
    ///
    /// # Errors
    /// What SQLite says. When a row is there already, also which one of them: the transaction has to be rolled back in any case.
    pub(super) fn rows(&'static self, db: &mut Connection, args: &[Arg<'_>]) -> Result<(), (Option<usize>, RawError)> {
        let mut done = 0;
        let mut left = args;
        while !left.is_empty() {
            let rows = left.len() / self.columns;
            let Some((size, sql)) = SIZES.iter().zip(&self.statements).find(|(size, _)| **size <= rows) else {
                return Err((None, RawError::corrupt("a row has not as many values as the table has columns")));
            };
            let (now, later) = left.split_at(size * self.columns);
            if let Err(error) = db.execute(sql, now) {
                let row = self.refused(db, now, &error).map(|row| done + row);
                return Err((row, error));
            }
            done += size;
            left = later;
        }
        Ok(())
    }

    /// Which row of a refused statement it was, found by trying one after the other.
    fn refused(&'static self, db: &mut Connection, args: &[Arg<'_>], error: &RawError) -> Option<usize> {
        let [.., one] = &self.statements;
        // Some errors end the transaction; a row that is tried after that would stay.
        if !error.is_duplicate() || !db.in_transaction() {
            return None;
        }
        args.chunks(self.columns).position(|row| db.execute(one, row).is_err())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_repeat_the_row() {
        let insert = Insert::of("INSERT INTO t (a, b)\nVALUES (?, ?)\n");
        assert_eq!(insert.columns, 2);
        assert_eq!(insert.statements[3], "INSERT INTO t (a, b)\nVALUES (?, ?)");
        assert_eq!(insert.statements[2], "INSERT INTO t (a, b)\nVALUES (?, ?), (?, ?), (?, ?), (?, ?)");
        assert_eq!(insert.statements[0].matches("(?, ?)").count(), 64);
    }
}

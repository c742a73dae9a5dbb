//! A list that a hostile trace cannot make grow without end.

use std::ops::{Deref, DerefMut};

/// Records of one message, up to a limit; those beyond it are counted and dropped.
///
/// An empty record takes two bytes in a trace but a hundred in memory, so a limit on the size of a message does not
/// limit its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records<T> {
    items: Vec<T>,
    limit: usize,
    beyond: u64,
}

impl<T> Records<T> {
    /// An empty list that keeps at most `limit` records.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self { items: Vec::new(), limit, beyond: 0 }
    }

    /// Adds a record if there is room; otherwise counts it as dropped.
    #[inline]
    pub fn push(&mut self, item: T) {
        if self.items.len() < self.limit {
            self.items.push(item);
        } else {
            self.beyond += 1;
        }
    }

    /// Forgets all records and how many were dropped, but keeps the memory for new ones.
    #[inline]
    pub fn clear(&mut self) {
        self.items.clear();
        self.beyond = 0;
    }

    /// Forgets the records from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.items.truncate(len);
    }

    /// The most records that the list keeps.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Records that were dropped since the last [`Records::clear`].
    #[inline]
    #[must_use]
    pub fn beyond(&self) -> u64 {
        self.beyond
    }
}

impl<T> Default for Records<T> {
    /// Without a limit.
    fn default() -> Self {
        Self::with_limit(usize::MAX)
    }
}

impl<T> Deref for Records<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        &self.items
    }
}

impl<T> DerefMut for Records<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.items
    }
}

impl<T: PartialEq, const N: usize> PartialEq<[T; N]> for Records<T> {
    fn eq(&self, other: &[T; N]) -> bool {
        self.items == other
    }
}

impl<'a, T> IntoIterator for &'a Records<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}

impl<'a, T> IntoIterator for &'a mut Records<T> {
    type Item = &'a mut T;
    type IntoIter = std::slice::IterMut<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.items.iter_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_the_limit_is_counted_until_the_list_is_cleared() {
        let mut records = Records::with_limit(2);
        (0..5).for_each(|number| records.push(number));
        assert_eq!((&records[..], records.beyond()), (&[0, 1][..], 3));
        records.truncate(1);
        records.push(7);
        assert_eq!((&records[..], records.beyond()), (&[0, 7][..], 3));
        records.clear();
        assert_eq!((records.len(), records.beyond(), records.limit()), (0, 0, 2));
    }
}

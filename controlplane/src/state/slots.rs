//! Numbers for things that others name by number.

use std::collections::VecDeque;

/// Things that keep their numbers as long as they exist. A number is used again as late as possible, for what still
/// names the one that is gone by it, as templates do, to have its time.
#[derive(Debug)]
pub(super) struct Slots<T> {
    items: Vec<Option<T>>,
    /// The numbers of what is gone, in that order.
    free: VecDeque<usize>,
    /// Numbers that there are before any is used again.
    room: usize,
}

impl<T> Slots<T> {
    /// None, with room for so many.
    pub(super) fn new(room: usize) -> Self {
        Self { items: Vec::new(), free: VecDeque::new(), room }
    }

    /// All numbers that were ever given, with what has them now.
    pub(super) fn all(&self) -> &[Option<T>] {
        &self.items
    }

    pub(super) fn len(&self) -> usize {
        self.items.len() - self.free.len()
    }

    pub(super) fn get(&self, number: usize) -> Option<&T> {
        self.items.get(number)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        self.items.get_mut(number)?.as_mut()
    }

    pub(super) fn insert(&mut self, item: T) -> usize {
        let again = if self.items.len() < self.room { None } else { self.free.pop_front() };
        let number = again.unwrap_or_else(|| {
            self.items.push(None);
            self.items.len() - 1
        });
        self.items[number] = Some(item);
        number
    }

    pub(super) fn remove(&mut self, number: usize) -> Option<T> {
        let item = self.items.get_mut(number)?.take()?;
        self.free.push_back(number);
        Some(item)
    }
}

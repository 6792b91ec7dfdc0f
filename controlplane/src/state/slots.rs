//! Numbers for things that others name by number.

/// Things that keep their numbers as long as they exist; numbers of what is gone are used again.
#[derive(Debug)]
pub(super) struct Slots<T> {
    items: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { items: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
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
        let number = self.free.pop().unwrap_or_else(|| {
            self.items.push(None);
            self.items.len() - 1
        });
        self.items[number] = Some(item);
        number
    }

    pub(super) fn remove(&mut self, number: usize) -> Option<T> {
        let item = self.items.get_mut(number)?.take()?;
        self.free.push(number);
        Some(item)
    }
}

//! What each event of a request has: nearly always there is one, which costs no allocation.

/// At least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OneOrMore<T> {
    pub first: T,
    pub rest: Vec<T>,
}

impl<T> OneOrMore<T> {
    pub(crate) fn one(first: T) -> Self {
        Self { first, rest: Vec::new() }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        std::iter::once(&mut self.first).chain(&mut self.rest)
    }

    pub(crate) fn map<U>(self, mut f: impl FnMut(T) -> U) -> OneOrMore<U> {
        OneOrMore { first: f(self.first), rest: self.rest.into_iter().map(f).collect() }
    }

    pub(crate) fn len(&self) -> usize {
        1 + self.rest.len()
    }
}

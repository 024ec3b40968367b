//! How often a header came that has to be there once.

/// The lines of one header: what is there more than once has no value, since readers differ in which line they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lines<T> {
    #[default]
    None,
    One(T),
    Several,
}

impl<T> Lines<T> {
    /// Adds a line.
    #[inline]
    pub fn add(&mut self, value: T) {
        *self = if matches!(self, Self::None) { Self::One(value) } else { Self::Several };
    }

    /// The value of the only line; `None` where there is no line.
    ///
    /// # Errors
    /// `several`, where there are several.
    #[inline]
    pub fn at_most_one<E>(self, several: E) -> Result<Option<T>, E> {
        match self {
            Self::None => Ok(None),
            Self::One(value) => Ok(Some(value)),
            Self::Several => Err(several),
        }
    }

    /// Whether there is any.
    #[inline]
    pub const fn is_some(&self) -> bool {
        !matches!(self, Self::None)
    }
}

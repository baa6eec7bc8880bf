//! The filters of an Integration.

use grapnel_crds::{Destination, FieldError, FilterErrorPolicy, IntegrationSpec};

use super::event_types::EventTypes;
use super::expression::Expression;
use super::limits::ExpressionError;

/// Some of the destinations of an Integration, by their positions. There are at most 16.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DestinationSet(u32);

impl DestinationSet {
    pub fn insert(&mut self, position: usize) {
        self.0 |= 1_u32.checked_shl(u32::try_from(position).unwrap_or(u32::MAX)).unwrap_or_default();
    }

    pub fn contains(self, position: usize) -> bool {
        let mut one = Self::default();
        one.insert(position);
        self.0 & one.0 != 0
    }

    /// Returns the destinations of both.
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn len(self) -> u64 {
        self.0.count_ones().into()
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Which events a destination gets.
#[derive(Debug)]
pub struct DestinationFilter {
    pub event_types: Option<EventTypes>,
    pub expression: Option<Expression>,
    /// Whether an event for which the expression has no result is filtered.
    pub drops_on_error: bool,
}

impl DestinationFilter {
    /// Compiles the filter of a destination; `None` if it has none.
    pub fn new(destination: &Destination) -> Result<Option<Self>, ExpressionError> {
        let event_types = EventTypes::new(&destination.event_types);
        let expression = destination.filter.as_deref().map(Expression::compile).transpose()?;
        let has_filter = event_types.is_some() || expression.is_some();
        let drops_on_error = destination.filter_error_policy() == FilterErrorPolicy::Drop;
        Ok(has_filter.then_some(Self { event_types, expression, drops_on_error }))
    }

    /// Returns whether the type of an event is one that the destination gets.
    pub fn includes(&self, event_type: &str) -> bool {
        self.event_types.as_ref().is_none_or(|types| types.includes(event_type))
    }
}

/// The filters of an Integration of which some destination has one, in the order of its destinations.
#[derive(Debug)]
pub struct IntegrationFilters(Vec<Option<DestinationFilter>>);

impl IntegrationFilters {
    /// Compiles the filters of an Integration; `None` if no destination has one.
    ///
    /// # Errors
    /// When expressions cannot be used, one error for each, in the words of [`ExpressionError`].
    pub fn new(spec: &IntegrationSpec) -> Result<Option<Self>, Vec<FieldError>> {
        let (mut filters, mut errors) = (Vec::with_capacity(spec.destinations.len()), Vec::new());
        for (position, destination) in spec.destinations.iter().enumerate() {
            match DestinationFilter::new(destination) {
                Ok(filter) => filters.push(filter),
                Err(error) => errors.push(FieldError {
                    field: format!("spec.destinations[{position}].filter"),
                    message: error.to_string(),
                }),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(filters.iter().any(Option::is_some).then_some(Self(filters)))
    }

    /// Returns the filter of the destination at a position.
    pub fn get(&self, position: usize) -> Option<&DestinationFilter> {
        self.0.get(position)?.as_ref()
    }

    /// Returns the destinations that do not get events of the type, whatever else they have.
    pub fn excluded_by_type(&self, event_type: &str) -> DestinationSet {
        let mut excluded = DestinationSet::default();
        for (position, filter) in self.0.iter().enumerate() {
            if filter.as_ref().is_some_and(|filter| !filter.includes(event_type)) {
                excluded.insert(position);
            }
        }
        excluded
    }

    /// Returns the expressions of the other destinations, with their positions.
    pub fn expressions(&self, excluded: DestinationSet) -> impl Iterator<Item = (usize, &Expression)> {
        self.0.iter().enumerate().filter_map(move |(position, filter)| {
            let expression = filter.as_ref()?.expression.as_ref()?;
            (!excluded.contains(position)).then_some((position, expression))
        })
    }
}

/// Returns the errors of the filters of an Integration, which its own validation does not find: it knows no expressions.
pub fn errors(spec: &IntegrationSpec) -> Vec<FieldError> {
    IntegrationFilters::new(spec).err().unwrap_or_default()
}

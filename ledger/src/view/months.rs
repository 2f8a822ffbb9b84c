//! Questions about what was agreed to by month.

use souk_protocol::LeaseId;

use super::{QueryError, View};
use crate::{
    keys,
    months::{AgreedIn, Month},
};

impl View {
    /// The last agreement about a lease in each month in which there was one, in order.
    ///
    /// # Errors
    /// [`QueryError`] if the store fails.
    pub fn months(&self, lease: &LeaseId) -> Result<Vec<(Month, AgreedIn)>, QueryError> {
        let rows = self.rows::<AgreedIn>(&keys::months(lease), "month")?;
        Ok(rows.into_iter().filter_map(|(key, row)| Some((keys::month_of(&key)?, row))).collect())
    }
}

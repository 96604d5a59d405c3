//! k-means: the index of the nearest centre.
//!
//! Not here: clusterings that cannot predict (the library cannot either).

use super::attrs::{Attrs, Matrix};
use super::linear::dot;
use super::{Evaluated, Read, Regress, Role, Rows, check_finite};
use crate::error::Result;
use crate::sketch::{Drawn, Frame, Sketch, Unary, Wire};

struct Centres {
    centres: Matrix,
    /// Half of each centre's squared length: distances are compared without the row's own.
    half_squares: Vec<f64>,
}

impl Regress for Centres {
    fn targets(&self) -> usize {
        1
    }

    fn predict(&self, rows: Rows<'_>, out: &mut [f64]) -> Evaluated {
        check_finite(rows, false)?;
        for (row, slot) in rows.iter().zip(out) {
            let mut best = (f64::INFINITY, 0);
            for (index, half) in self.half_squares.iter().enumerate() {
                let distance = half - dot(row, self.centres.row(index));
                if distance < best.0 {
                    best = (distance, index);
                }
            }
            *slot = best.1 as f64;
        }
        Ok(())
    }

    fn draw(&self, sketch: &mut Sketch, rows: &Frame) -> Drawn<Wire> {
        let table = rows.table(sketch)?;
        let near = sketch.product_with_rows(table, &self.centres.data, self.centres.rows);
        let half = sketch.row(&self.half_squares);
        let near = sketch.subtract(near, half);
        let places = sketch.argmax(near);
        let places = sketch.unary(Unary::Number, places);
        Ok(sketch.shape(places, &[-1, 1]))
    }
}

pub(super) fn k_means(attrs: &Attrs<'_>) -> Result<Read> {
    let centres = attrs.matrix("cluster_centers_")?;
    if centres.cols != attrs.features()? {
        return Err(attrs.error("cluster_centers_ have another width than the columns"));
    }
    let half_squares =
        (0..centres.rows).map(|index| dot(centres.row(index), centres.row(index)) / 2.0).collect();
    let detail = format!("{} centres", centres.rows);
    let cost = centres.data.len() as u64;
    Ok(Read::new(Role::Assigner(Box::new(Centres { centres, half_squares })), detail, cost))
}

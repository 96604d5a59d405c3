//! Turns parsed filters and orders into SQL for one kind of thing.
//!
//! Only names from the closed lists of a [`Schema`] reach the text of a statement; keys and values are bound.

use super::{Clause, Entity, Op, Operand, Order};
use crate::db::Sql;
use crate::error::{Error, Result};

/// How an attribute is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
}

/// An attribute: its names in filters, its column, its kind.
pub(crate) struct Attribute {
    pub(crate) names: &'static [&'static str],
    pub(crate) column: &'static str,
    pub(crate) kind: Kind,
}

/// A table of keys and values that belong to the thing.
pub(crate) struct Child {
    pub(crate) entity: Entity,
    pub(crate) table: &'static str,
    /// Joins the child `c` to the main table.
    pub(crate) on: &'static str,
    pub(crate) kind: Kind,
}

/// What can be asked of one kind of thing.
pub(crate) struct Schema {
    pub(crate) attributes: &'static [Attribute],
    pub(crate) children: &'static [Child],
    /// Joins `ml_run_datasets c` to the main table, where datasets can be asked for.
    pub(crate) datasets: Option<&'static str>,
}

/// Shorthand for tables of attributes.
pub(crate) const fn text(names: &'static [&'static str], column: &'static str) -> Attribute {
    Attribute { names, column, kind: Kind::Text }
}

/// Shorthand for tables of attributes.
pub(crate) const fn number(names: &'static [&'static str], column: &'static str) -> Attribute {
    Attribute { names, column, kind: Kind::Number }
}

impl Schema {
    fn attribute(&self, key: &str) -> Result<&Attribute> {
        self.attributes.iter().find(|attribute| attribute.names.contains(&key)).ok_or_else(|| {
            let known: Vec<_> = self.attributes.iter().map(|attribute| attribute.names[0]).collect();
            Error::Invalid(format!(
                "Invalid attribute key '{key}' specified. Valid keys are: {}",
                known.join(", ")
            ))
        })
    }

    fn child(&self, entity: Entity, key: &str) -> Result<&Child> {
        self.children.iter().find(|child| child.entity == entity).ok_or_else(|| {
            Error::Invalid(format!("Invalid entity type for key '{key}': this search does not know it"))
        })
    }

    /// Appends ` AND …` for each clause.
    pub(crate) fn filter(&self, sql: &mut Sql, clauses: &[Clause]) -> Result<()> {
        for clause in clauses {
            sql.push(" AND ");
            match clause.entity {
                Entity::Attribute => {
                    let attribute = self.attribute(&clause.key)?;
                    compare(sql, attribute.column, attribute.kind, clause)?;
                }
                Entity::Dataset => self.filter_datasets(sql, clause)?,
                entity => self.filter_child(sql, self.child(entity, &clause.key)?, clause)?,
            }
        }
        Ok(())
    }

    fn filter_child(&self, sql: &mut Sql, child: &Child, clause: &Clause) -> Result<()> {
        let absent = clause.op == Op::IsNull;
        sql.push(if absent { "NOT EXISTS (SELECT 1 FROM " } else { "EXISTS (SELECT 1 FROM " });
        sql.push(child.table)
            .push(" c WHERE ")
            .push(child.on)
            .push(" AND c.key = ")
            .bind(clause.key.as_str());
        if child.kind == Kind::Number {
            sql.push(" AND c.is_nan = 0");
        }
        if !matches!(clause.op, Op::IsNull | Op::IsNotNull) {
            sql.push(" AND ");
            compare(sql, "c.value", child.kind, clause)?;
        }
        sql.push(")");
        Ok(())
    }

    fn filter_datasets(&self, sql: &mut Sql, clause: &Clause) -> Result<()> {
        let column = match (self.datasets, clause.key.as_str()) {
            (Some(_), "name") => "c.name",
            (Some(_), "digest") => "c.digest",
            (Some(_), "context") => "c.context",
            _ => {
                return Err(Error::Invalid(format!(
                    "Invalid dataset attribute key '{}' specified. Valid keys are: name, digest, context",
                    clause.key
                )));
            }
        };
        sql.push("EXISTS (SELECT 1 FROM ml_run_datasets c WHERE ")
            .push(self.datasets.unwrap_or("0 = 1"))
            .push(" AND ");
        compare(sql, column, Kind::Text, clause)?;
        sql.push(")");
        Ok(())
    }

    /// Appends `ORDER BY …, last`: values that are missing come last either way, as upstream sorts them.
    pub(crate) fn order(&self, sql: &mut Sql, orders: &[Order], last: &str) -> Result<()> {
        sql.push(" ORDER BY ");
        for order in orders {
            let direction = if order.descending { " DESC, " } else { " ASC, " };
            if order.entity == Entity::Attribute {
                let column = self.attribute(&order.key)?.column;
                sql.push("CASE WHEN ")
                    .push(column)
                    .push(" IS NULL THEN 1 ELSE 0 END, ")
                    .push(column)
                    .push(direction);
                continue;
            }
            let child = self.child(order.entity, &order.key)?;
            let nan = if child.kind == Kind::Number { " AND c.is_nan = 0" } else { "" };
            let column = |sql: &mut Sql| {
                sql.push("(SELECT c.value FROM ").push(child.table).push(" c WHERE ").push(child.on);
                sql.push(" AND c.key = ").bind(order.key.as_str()).push(nan).push(" LIMIT 1)");
            };
            sql.push("CASE WHEN ");
            column(sql);
            sql.push(" IS NULL THEN 1 ELSE 0 END, ");
            column(sql);
            sql.push(direction);
        }
        sql.push(last);
        Ok(())
    }
}

fn compare(sql: &mut Sql, column: &str, kind: Kind, clause: &Clause) -> Result<()> {
    let sign = match clause.op {
        Op::Eq => " = ",
        Op::Ne => " != ",
        Op::Lt => " < ",
        Op::Le => " <= ",
        Op::Gt => " > ",
        Op::Ge => " >= ",
        Op::Like | Op::ILike => " LIKE ",
        Op::In => " IN ",
        Op::NotIn => " NOT IN ",
        Op::IsNull => {
            sql.push(column).push(" IS NULL");
            return Ok(());
        }
        Op::IsNotNull => {
            sql.push(column).push(" IS NOT NULL");
            return Ok(());
        }
    };
    let number_op = matches!(clause.op, Op::Eq | Op::Ne | Op::Lt | Op::Le | Op::Gt | Op::Ge);
    let text_op = matches!(clause.op, Op::Eq | Op::Ne | Op::Like | Op::ILike);
    match (kind, &clause.operand) {
        (Kind::Number, Operand::Number(value)) if number_op => {
            sql.push(column).push(sign).bind(*value);
        }
        // Upstream's clients quote numbers of attributes such as version_number.
        (Kind::Number, Operand::Text(text)) if number_op && text.parse::<f64>().is_ok() => {
            sql.push(column).push(sign).bind(text.parse::<f64>().unwrap_or_default());
        }
        (Kind::Text, Operand::Text(text)) if clause.op == Op::ILike => {
            sql.push("LOWER(").push(column).push(")").push(sign).bind(text.to_lowercase());
        }
        (Kind::Text, Operand::Text(text)) if text_op => {
            sql.push(column).push(sign).bind(text.as_str());
        }
        (Kind::Text, Operand::List(list)) => {
            sql.push(column).push(sign).bind_list(list.iter().map(String::as_str));
        }
        _ => {
            let wanted = if kind == Kind::Number {
                "a number and one of =, !=, <, <=, >, >="
            } else {
                "a quoted text and one of =, !=, LIKE, ILIKE, IN, NOT IN"
            };
            return Err(Error::Invalid(format!(
                "Invalid comparison for '{}': expected {wanted}",
                clause.key
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: Schema = Schema {
        attributes: &[text(&["name", "run_name"], "r.name"), number(&["start_time"], "r.start_time")],
        children: &[Child {
            entity: Entity::Metric,
            table: "m",
            on: "c.run_id = r.run_id",
            kind: Kind::Number,
        }],
        datasets: None,
    };

    fn sql(filter: &str) -> Result<String> {
        let mut sql = Sql::new("");
        SCHEMA.filter(&mut sql, &super::super::parse(filter)?)?;
        Ok(sql.text().to_owned())
    }

    #[test]
    fn keys_and_values_are_bound_never_written() {
        let text = sql("metrics.`x' OR 1=1 --` > 1 AND name = 'y''; DROP TABLE z'").unwrap();
        assert!(!text.contains("DROP") && !text.contains("OR 1=1"), "{text}");
        assert!(
            text.contains("c.key = $1") && text.contains("c.value > $2") && text.contains("r.name = $3"),
            "{text}"
        );
    }

    #[test]
    fn comparisons_that_make_no_sense_are_refused() {
        for bad in [
            "nme = 'x'",
            "start_time = 'soon'",
            "name > 'x'",
            "metrics.m LIKE 'x'",
            "params.p = '1'",
            "name = 5",
        ] {
            assert!(sql(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn missing_values_sort_last() {
        let mut out = Sql::new("");
        let order = super::super::parse_order("metrics.m DESC").unwrap();
        SCHEMA.order(&mut out, &[order], "r.run_id").unwrap();
        assert!(
            out.text().contains("IS NULL THEN 1 ELSE 0 END") && out.text().ends_with(" DESC, r.run_id"),
            "{}",
            out.text()
        );
    }
}

//! A table for a terminal: columns as wide as their content, empty ones left out. It must never know what is in a cell.

use crate::console::{Colours, Style};

/// One cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    pub text: String,
    pub style: Style,
}

impl Cell {
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), style: Style::Plain }
    }

    pub fn styled(style: Style, text: impl Into<String>) -> Self {
        Self { text: text.into(), style }
    }
}

/// Headings and rows, each line ended and without blanks at its end. A column with nothing in it is not shown.
pub(crate) fn render<const N: usize>(headings: &[&str; N], rows: &[[Cell; N]], colours: Colours) -> String {
    let width = |column: usize| {
        let widest = rows.iter().map(|row| row[column].text.chars().count()).max().unwrap_or(0);
        if widest == 0 { 0 } else { widest.max(headings[column].len()) }
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let heading: [Cell; N] = std::array::from_fn(|column| Cell::styled(Style::Bold, headings[column]));
    let mut text = String::new();
    for row in std::iter::once(&heading).chain(rows) {
        let mut gap = 0;
        for (cell, width) in row.iter().zip(widths).filter(|(_, width)| *width > 0) {
            if !cell.text.is_empty() {
                text.extend(std::iter::repeat_n(' ', gap));
                text.push_str(&colours.paint(cell.style, &cell.text));
                gap = 0;
            }
            gap += width - cell.text.chars().count() + 2;
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fit_and_empty_ones_go() {
        let rows = [
            [Cell::plain("a"), Cell::plain(""), Cell::styled(Style::Good, "ünïcode"), Cell::plain("")],
            [Cell::plain("abcdef"), Cell::plain(""), Cell::plain(""), Cell::plain("end")],
        ];
        let headings = ["ONE", "TWO", "THREE", "FOUR"];
        assert_eq!(render(&headings, &rows, Colours::Off), "ONE     THREE    FOUR\na       ünïcode\nabcdef           end\n");
        assert_eq!(
            render(&headings, &rows, Colours::On).lines().nth(1),
            Some("a       \x1b[32münïcode\x1b[0m"),
            "colour must not count as width"
        );
    }
}

//! Measures whole builds with one or more daemons and prints a table.

use clap::{Parser, ValueEnum as _};
use tests::bench::{Bench, Row, median, print};

/// Measure builds with any daemon that speaks BuildKit's API
///
/// Without endpoints, a builderd is started for the purpose and, where it is installed, a buildkitd to compare with.
#[derive(Debug, Parser)]
struct Args {
    /// A daemon to measure, NAME=ADDRESS; repeatable. Ratios are those of the first to the last
    #[arg(long, value_name = "NAME=ADDRESS")]
    endpoint: Vec<String>,

    /// Rows to measure; all if not given
    #[arg(long, value_enum, value_delimiter = ',')]
    row: Vec<Row>,

    /// How often each is measured
    #[arg(long, default_value_t = 3)]
    runs: u32,

    /// How the builderd that is started runs steps
    #[arg(long, default_value = "native")]
    executor: String,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let bench = Bench::new(&args.endpoint, &["--executor", &args.executor])?;
    let rows = if args.row.is_empty() {
        Row::value_variants().to_vec()
    } else {
        args.row
    };
    let mut measured = Vec::new();
    for row in rows {
        eprintln!("measuring: {}", row.title_and_budget().0);
        let mut values = vec![Vec::new(); bench.endpoints.len()];
        for run in 0..args.runs {
            for (endpoint, values) in bench.endpoints.iter().zip(&mut values) {
                match bench.measure(row, endpoint, run) {
                    Ok(value) => values.extend(value),
                    Err(error) => eprintln!("{}: {error:#}", endpoint.name),
                }
            }
        }
        measured.push((row, values.into_iter().map(median).collect()));
    }
    let names: Vec<&str> = bench
        .endpoints
        .iter()
        .map(|endpoint| endpoint.name.as_str())
        .collect();
    print(&mut std::io::stdout().lock(), &names, &measured)?;
    Ok(())
}

//! Products against sums in `double`, and the bits of a row.

use super::*;

fn cells(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|at| (((at * 37 + seed * 101) % 97) as f32 - 48.0) / 31.0).collect()
}

fn kernels() -> Vec<Kernel> {
    let mut all = vec![kernel(), Kernel { high: 4, tile: plain }];
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the CPU has what the function is compiled for.
        all.push(Kernel { high: 6, tile: |panel, rows, place| unsafe { wide::avx2(panel, rows, place) } });
    }
    all
}

const SHAPES: [(usize, usize, usize); 9] = [
    (1, 3, 5),
    (2, 1, 1),
    (5, 17, 33),
    (7, 900, 40),
    (33, 64, 65),
    (12, 5, 16),
    (200, 9, 20),
    (23, 3, 32),
    (9, 4, 49),
];

#[test]
fn every_kernel_gives_the_sums() {
    for (n, k, m) in SHAPES {
        let (a, b) = (cells(n * k, 1), cells(k * m, 2));
        for kernel in kernels() {
            let mut out = vec![f32::NAN; n * m];
            run(kernel, &mut out, A::Plain(&a), B::Plain(&b), (n, k, m), Plus::Nothing).unwrap();
            for (at, got) in out.iter().enumerate() {
                let (row, column) = (at / m, at % m);
                let products = (0..k).map(|at| f64::from(a[row * k + at]) * f64::from(b[at * m + column]));
                let want: f64 = products.sum();
                assert!((f64::from(*got) - want).abs() < 1e-3, "{n}x{k}x{m}, {}: {at}", kernel.high);
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_however_the_sides_are_laid_out() {
    for (n, k, m) in SHAPES {
        let (a, b) = (cells(n * k, 1), cells(k * m, 2));
        let turned: Vec<f32> =
            (0..m).flat_map(|column| (0..k).map(move |row| row * m + column)).map(|at| b[at]).collect();
        let mut whole = vec![0.0; n * m];
        product(&mut whole, A::Plain(&a), B::Plain(&b), (n, k, m), Plus::Nothing).unwrap();
        let (left, right) = (Left::pack(&a, (n, k)), Right::pack(&turned, (k, m), true));
        for (a, b) in [
            (A::Packed(&left), B::Plain(&b)),
            (A::Plain(&a), B::Packed(&right)),
            (A::Plain(&a), B::Turned(&turned)),
        ] {
            let mut out = vec![0.0; n * m];
            product(&mut out, a, b, (n, k, m), Plus::Nothing).unwrap();
            assert_eq!(out, whole, "{n}x{k}x{m}");
        }
        for (row, want) in a.chunks_exact(k).zip(whole.chunks_exact(m)) {
            let mut out = vec![0.0; m];
            product(&mut out, A::Plain(row), B::Plain(&b), (1, k, m), Plus::Nothing).unwrap();
            assert_eq!(out, want, "{n}x{k}x{m}, alone");
        }
    }
}

#[test]
fn what_is_small_or_would_grow_is_left_to_a_loop() {
    for (k, m, want) in
        [(4, 4, false), (16, 16, true), (30_000, 1, true), (40_000, 1, false), (40_000, 8, true)]
    {
        assert_eq!(pays(k, m), want, "{k}x{m}");
    }
}

#[test]
fn shifted_rows_are_rows() {
    for (n, k, m) in SHAPES {
        let (a, all) = (cells(n * k, 1), cells(5 * k + m + B::COLUMNS_BEHIND, 2));
        let starts: Vec<usize> = (0..k).map(|row| (row * 5 + 3 * (row % 2)) % (5 * k)).collect();
        let rows: Vec<f32> = starts.iter().flat_map(|start| all[*start..start + m].to_vec()).collect();
        let (mut out, mut want) = (vec![0.0; n * m], vec![0.0; n * m]);
        let b = B::Shifted { cells: &all, starts: &starts };
        product(&mut out, A::Plain(&a), b, (n, k, m), Plus::Nothing).unwrap();
        product(&mut want, A::Plain(&a), B::Plain(&rows), (n, k, m), Plus::Nothing).unwrap();
        assert_eq!(out, want, "{n}x{k}x{m}");
        let b = B::Shifted { cells: &all[..m], starts: &starts };
        assert!(product(&mut out, A::Plain(&a), b, (n, k, m), Plus::Nothing).is_err());
    }
}

#[test]
fn what_is_added_goes_to_its_row_or_column() {
    let (a, b) = (cells(6, 1), cells(12, 2));
    let run = |plus: Plus<'_>| {
        let mut out = vec![9.0; 8];
        product(&mut out, A::Plain(&a), B::Plain(&b), (2, 3, 4), plus).unwrap();
        out
    };
    let bare = run(Plus::Nothing);
    let near = |got: &[f32], plus: &dyn Fn(usize) -> f32| {
        got.iter().enumerate().all(|(at, x)| (x - bare[at] - plus(at)).abs() < 1e-5)
    };
    assert!(near(&run(Plus::Columns(&[1.0, 2.0, 3.0, 4.0])), &|at| (at % 4 + 1) as f32));
    assert!(near(&run(Plus::Rows(&[1.0, 2.0])), &|at| (at / 4 + 1) as f32));
}

#[test]
fn sizes_that_do_not_fit_are_refused_and_nothing_is_a_legal_size() {
    let mut out = vec![0.0; 4];
    assert!(product(&mut out, A::Plain(&[1.0; 3]), B::Plain(&[1.0; 4]), (2, 2, 2), Plus::Nothing).is_err());
    assert!(product(&mut out, A::Plain(&[1.0; 4]), B::Plain(&[1.0; 3]), (2, 2, 2), Plus::Nothing).is_err());
    assert!(
        product(&mut out, A::Plain(&[1.0; 4]), B::Plain(&[1.0; 4]), (2, 2, 2), Plus::Rows(&[1.0])).is_err()
    );
    product(&mut out, A::Plain(&[]), B::Plain(&[]), (2, 0, 2), Plus::Rows(&[1.0, 2.0])).unwrap();
    assert_eq!(out, [1.0, 1.0, 2.0, 2.0]);
    product(&mut [], A::Plain(&[]), B::Plain(&[]), (0, 3, 0), Plus::Nothing).unwrap();
}

(** T5. The relaxed iteration y <- y + omega (y_s - F y) converges for every strongly monotone Lipschitz F (Zarantonello),
    with rate sqrt(1 - 2 omega m + omega^2 L^2); omega = m / L^2 is best. *)

From Coq Require Import Reals Lra.
From Coquelicot Require Import Coquelicot.
From Fpjax Require Import space banach t2.
Open Scope R_scope.

(** One relaxed step brings two points closer. *)
Lemma relaxed_contracts {V : NormedModule R_AbsRing} {ip : InnerProduct V} (m L omega : R) (d e : V) :
  0 < omega -> m * norm d ^ 2 <= ⟨e, d⟩ -> norm e <= L * norm d ->
  norm (d [-] omega [*] e) <= sqrt (1 - 2 * omega * m + omega ^ 2 * L ^ 2) * norm d.
Proof.
  intros Ho Hm HL; set (q2 := 1 - 2 * omega * m + omega ^ 2 * L ^ 2).
  assert (H : norm (d [-] omega [*] e) ^ 2 <= q2 * norm d ^ 2).
  { replace (d [-] omega [*] e) with (d [+] (- omega) [*] e) by vector.
    rewrite norm_plus_scal_sqr, (inner_sym d e); unfold q2.
    assert (norm e ^ 2 <= L ^ 2 * norm d ^ 2).
    { rewrite <- Rpow_mult_distr; apply pow_incr; split; [apply norm_ge_0|exact HL]. }
    assert (omega ^ 2 * norm e ^ 2 <= omega ^ 2 * (L ^ 2 * norm d ^ 2)).
    { apply Rmult_le_compat_l; [apply pow2_ge_0|assumption]. }
    assert (omega * (m * norm d ^ 2) <= omega * ⟨e, d⟩) by (apply Rmult_le_compat_l; lra).
    lra. }
  assert (Hn := norm_ge_0 (d [-] omega [*] e)); assert (Hd := norm_ge_0 d).
  destruct (Rle_or_lt 0 q2) as [Hq|Hq].
  - rewrite <- (sqrt_pow2 (norm (d [-] omega [*] e))), <- (sqrt_pow2 (norm d)), <- sqrt_mult by
      (try apply pow2_ge_0; assumption).
    now apply sqrt_le_1_alt.
  - (* q2 < 0 only in the space {0} *)
    assert (q2 * norm d ^ 2 <= 0 * norm d ^ 2) by (apply Rmult_le_compat_r; [apply pow2_ge_0|lra]).
    assert (norm (d [-] omega [*] e) = 0).
    { destruct Hn as [Hn|Hn]; [|easy]; assert (0 < norm (d [-] omega [*] e) ^ 2) by now apply pow_lt. lra. }
    rewrite H1; apply Rmult_le_pos; [apply sqrt_pos|exact Hd].
Qed.

Lemma relaxed_rate (m L omega : R) :
  0 < L -> 0 < omega < 2 * m / L ^ 2 -> 0 <= sqrt (1 - 2 * omega * m + omega ^ 2 * L ^ 2) < 1.
Proof.
  intros HL [Ho1 Ho2]; split; [apply sqrt_pos|].
  assert (H2 : 0 < L ^ 2) by now apply pow_lt.
  apply Rlt_div_r in Ho2; [|exact H2].
  assert (H : omega * (omega * L ^ 2) < omega * (2 * m)) by now apply Rmult_lt_compat_l.
  destruct (Rle_or_lt 0 (1 - 2 * omega * m + omega ^ 2 * L ^ 2)) as [Hq|Hq].
  - apply Rlt_le_trans with (sqrt 1); [apply sqrt_lt_1_alt; split; [exact Hq|lra]|rewrite sqrt_1; lra].
  - rewrite sqrt_neg_0 by lra; lra.
Qed.

Theorem t5_relaxed (V : NormedModule R_AbsRing) (ip : InnerProduct V) (F : V -> V) (m L omega : R) (y_s y0 : V)
  (HV : complete V)
  (Hm : 0 < m)
  (HL : 0 < L)
  (Hmonotone : forall u v, m * norm (u [-] v) ^ 2 <= ⟨F u [-] F v, u [-] v⟩)
  (Hlipschitz : forall u v, norm (F u [-] F v) <= L * norm (u [-] v))
  (Homega : 0 < omega < 2 * m / L ^ 2) :
  let q := sqrt (1 - 2 * omega * m + omega ^ 2 * L ^ 2) in
  let T := fun y => y [+] omega [*] (y_s [-] F y) in
  0 <= q < 1 /\
  exists y, F y = y_s /\ (forall z, F z = y_s -> z = y) /\
    (forall k, norm (Nat.iter k T y0 [-] y) <= q ^ k * norm (y0 [-] y)).
Proof.
  intros q T.
  assert (Hq : 0 <= q < 1) by now apply relaxed_rate.
  split; [exact Hq|].
  assert (HT : forall u v, norm (T u [-] T v) <= q * norm (u [-] v)).
  { intros u v; unfold T.
    replace (u [+] omega [*] (y_s [-] F u) [-] (v [+] omega [*] (y_s [-] F v)))
      with ((u [-] v) [-] omega [*] (F u [-] F v)) by vector.
    apply relaxed_contracts; [lra|apply Hmonotone|apply Hlipschitz]. }
  destruct (banach_closed V (fun _ => True) T q y0) as (y & _ & Hy & _ & _ & _ & Hrate); auto.
  assert (Fy : F y = y_s).
  { replace (F y) with (y_s [-] (/ omega) [*] (T y [-] y)) by (unfold T; vector_by ltac:(field; lra)).
    rewrite Hy; vector. }
  exists y; repeat split; auto.
  intros z Hz; apply (t2_unique V ip F m Hm Hmonotone); now rewrite Fy.
Qed.

(** The best relaxation is omega = m / L^2, with rate sqrt(1 - m^2 / L^2). *)
Theorem t5_best (m L : R)
  (Hm : 0 < m)
  (HL : 0 < L) :
  0 < m / L ^ 2 < 2 * m / L ^ 2 /\
  sqrt (1 - 2 * (m / L ^ 2) * m + (m / L ^ 2) ^ 2 * L ^ 2) = sqrt (1 - m ^ 2 / L ^ 2) /\
  forall omega, sqrt (1 - m ^ 2 / L ^ 2) <= sqrt (1 - 2 * omega * m + omega ^ 2 * L ^ 2).
Proof.
  assert (H : 0 < m / L ^ 2) by (apply Rdiv_lt_0_compat; [exact Hm|now apply pow_lt]).
  repeat split.
  - exact H.
  - replace (2 * m / L ^ 2) with (2 * (m / L ^ 2)) by (field; lra); lra.
  - f_equal; field; lra.
  - intros omega; apply sqrt_le_1_alt.
    assert (0 <= (omega * L - m / L) ^ 2) by apply pow2_ge_0.
    replace (1 - 2 * omega * m + omega ^ 2 * L ^ 2) with (1 - m ^ 2 / L ^ 2 + (omega * L - m / L) ^ 2) by (field; lra).
    lra.
Qed.

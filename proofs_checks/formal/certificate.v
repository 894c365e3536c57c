(** One certificate from its rational data to its conclusion: the denoiser D(y) = 6 y / (1 + y^2), a step with rho = 1/2, the
    target y_s = 1.  G does not contract (D'(0) = 6 is beyond T3's upper edge 3), yet the solution is unique on the whole
    line, and it lies within 1e-9 of the given rational number. *)

From Coq Require Import Reals Lra.
From Coquelicot Require Import Coquelicot.
From Fpjax Require Import space t2 t13.
Open Scope R_scope.

Definition D (y : R) : R := 6 * y / (1 + y ^ 2).
Definition F (y : R) : R := / 2 * y + (1 - / 2) * D y.

(** The data of the certificate: centre, preconditioner, radius, and the two bounds. *)
Definition ybar : R := 3087452155 / 10000000000.
Definition A : R := 3620 / 10000.
Definition radius : R := / 1000000000.
Definition Y : R := / 2000000000.
Definition Z : R := / 50.

(** The slope of F between two points. *)
Definition slope (u v : R) : R := / 2 + 3 * (1 - u * v) / ((1 + u ^ 2) * (1 + v ^ 2)).

Lemma slope_eq (u v : R) : F u - F v = slope u v * (u - v).
Proof.
  unfold F, D, slope; assert (0 <= u ^ 2) by apply pow2_ge_0; assert (0 <= v ^ 2) by apply pow2_ge_0.
  field; lra.
Qed.

(** Everywhere the slope is at least 1/8. *)
Lemma slope_ge (u v : R) : / 8 <= slope u v.
Proof.
  unfold slope.
  assert (Hu : 0 <= u ^ 2) by apply pow2_ge_0; assert (Hv : 0 <= v ^ 2) by apply pow2_ge_0.
  assert (HP : 0 < (1 + u ^ 2) * (1 + v ^ 2)) by (apply Rmult_lt_0_compat; lra).
  assert (H : - (3 / 8) * ((1 + u ^ 2) * (1 + v ^ 2)) <= 3 * (1 - u * v)).
  { assert (H1 := pow2_ge_0 (u * v - 3)); assert (H2 := pow2_ge_0 (u - v)); nra. }
  apply Rle_div_r in H; [|exact HP]; lra.
Qed.

(** On [0.30, 0.31] it is between 2.75 and 2.80. *)
Lemma slope_near (u v : R) : 30 / 100 <= u <= 31 / 100 -> 30 / 100 <= v <= 31 / 100 -> 275 / 100 <= slope u v <= 280 / 100.
Proof.
  intros Hu Hv; unfold slope.
  assert (H1 : 9 / 100 <= u * v <= 961 / 10000) by nra.
  assert (H2 : 9 / 100 <= u ^ 2 <= 961 / 10000) by nra.
  assert (H3 : 9 / 100 <= v ^ 2 <= 961 / 10000) by nra.
  set (P := (1 + u ^ 2) * (1 + v ^ 2)).
  assert (HP : 11881 / 10000 <= P <= 12015 / 10000).
  { unfold P; split.
    - apply Rle_trans with ((109 / 100) * (109 / 100)); [lra|apply Rmult_le_compat; lra].
    - apply Rle_trans with ((10961 / 10000) * (10961 / 10000)); [apply Rmult_le_compat; lra|lra]. }
  clearbody P.
  assert (225 / 100 <= 3 * (1 - u * v) / P) by (apply (Rle_div_r (225 / 100)); lra).
  assert (3 * (1 - u * v) / P <= 230 / 100) by (apply Rle_div_l; lra).
  lra.
Qed.

Theorem certificate_ball :
  exists y, Rabs (y - ybar) <= radius /\ F y = 1 /\ (forall z, F z = 1 -> z = y) /\
    (forall u v, Rabs (u - v) <= Rabs (F u - F v) / (/ 8)).
Proof.
  assert (near : forall u, Rabs (u - ybar) <= radius -> 30 / 100 <= u <= 31 / 100).
  { intros u Hu; apply Rabs_le_between in Hu; unfold ybar, radius in Hu; lra. }
  destruct (t13_operator R_NormedModule F (fun e => A * e) 1 ybar radius Y Z) as (y & Hr & Hy & _).
  - exact complete_R.
  - intros u v; apply Rmult_plus_distr_l.
  - intros a u; change (A * (a * u) = a * (A * u)); ring.
  - intros u Hu; change (A * u = 0) in Hu; apply Rmult_integral in Hu; unfold A in Hu.
    destruct Hu as [Hu|Hu]; [lra|exact Hu].
  - change (Rabs (A * (F ybar - 1)) <= Y); unfold A, F, D, ybar, Y.
    apply Rabs_le_between; split; lra.
  - intros u v Hu Hv; change (Rabs ((u - v) - A * (F u - F v)) <= Z * Rabs (u - v)).
    rewrite slope_eq.
    replace (u - v - A * (slope u v * (u - v))) with ((1 - A * slope u v) * (u - v)) by ring.
    rewrite Rabs_mult; apply Rmult_le_compat_r; [apply Rabs_pos|].
    assert (H := slope_near u v (near u Hu) (near v Hv)); unfold A, Z.
    apply Rabs_le_between; lra.
  - unfold Y, Z, radius; lra.
  - unfold Z; lra.
  - assert (Hm : forall u v, Rabs (u - v) <= Rabs (F u - F v) / (/ 8)).
    { intros u v; assert (H := slope_ge u v).
      rewrite slope_eq, Rabs_mult, (Rabs_pos_eq (slope u v)) by lra.
      assert (H1 := Rmult_le_compat_r (Rabs (u - v)) _ _ (Rabs_pos _) H); lra. }
    exists y; repeat split; [exact Hr|exact Hy| |exact Hm].
    intros z Hz; specialize (Hm z y); rewrite Hz, Hy, Rminus_eq_0, Rabs_R0 in Hm.
    assert (Rabs (z - y) = 0) by (apply Rle_antisym; [lra|apply Rabs_pos]).
    assert (z - y = 0); [|lra].
    destruct (Req_dec (z - y) 0) as [E|E]; [exact E|]; now apply Rabs_no_R0 in E.
Qed.

(** Meanwhile the fixed-point map pushes some points apart: T3 is not available here, and not needed. *)
Theorem certificate_expands :
  let G := fun y => 1 + (1 - / 2) * (y - D y) in
  exists u v, 2 * Rabs (u - v) < Rabs (G u - G v).
Proof.
  intros G; exists (1 / 10), 0; unfold G, D.
  rewrite (Rabs_pos_eq (1 / 10 - 0)) by lra.
  apply Rlt_le_trans with (- (1 + (1 - / 2) * (1 / 10 - 6 * (1 / 10) / (1 + (1 / 10) ^ 2))
    - (1 + (1 - / 2) * (0 - 6 * 0 / (1 + 0 ^ 2))))); [lra|].
  rewrite <- Rabs_Ropp; apply Rle_abs.
Qed.

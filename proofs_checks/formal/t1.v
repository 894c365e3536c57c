(** T1 on the line. Existence: for D(y) = c y + B(y) with c >= 0 and B bounded and continuous, F takes every value. *)

From Coq Require Import Reals Lra.
From Coquelicot Require Import Coquelicot.
Open Scope R_scope.

Theorem t1_line (B : R -> R) (c rho M y_s : R)
  (Hrho : 0 < rho <= 1)
  (Hc : 0 <= c)
  (Hbounded : forall y, Rabs (B y) <= M)
  (Hcontinuous : continuity B) :
  exists y, rho * y + (1 - rho) * (c * y + B y) = y_s.
Proof.
  assert (HM : 0 <= M) by (apply Rle_trans with (2 := Hbounded 0), Rabs_pos).
  set (f := fun y => rho * y + (1 - rho) * (c * y + B y)).
  set (b := (Rabs y_s + M) / rho).
  assert (Hb : rho * b = Rabs y_s + M) by (unfold b; field; lra).
  assert (Hb0 : 0 <= b) by (unfold b; apply Rdiv_le_0_compat; [assert (H := Rabs_pos y_s)|]; lra).
  assert (Hcb : 0 <= (1 - rho) * (c * b)) by (apply Rmult_le_pos; [lra|now apply Rmult_le_pos]).
  assert (HB : forall y, - M <= (1 - rho) * B y <= M).
  { intros y; assert (H := Hbounded y); apply Rabs_le_between in H.
    assert ((1 - rho) * B y <= (1 - rho) * M) by (apply Rmult_le_compat_l; lra).
    assert ((1 - rho) * - M <= (1 - rho) * B y) by (apply Rmult_le_compat_l; lra).
    assert (0 <= rho * M) by (apply Rmult_le_pos; lra). lra. }
  assert (Hy := Rle_abs y_s); assert (Hy' := Rle_abs (- y_s)); rewrite Rabs_Ropp in Hy'.
  destruct (IVT_gen f (- b) b y_s) as (y & _ & Hf).
  - unfold f; intros y; apply continuity_pt_plus.
    + apply derivable_continuous_pt, derivable_pt_mult; [apply derivable_pt_const|apply derivable_pt_id].
    + apply continuity_pt_mult; [apply continuity_pt_const; now intros ? ?|].
      apply continuity_pt_plus; [|apply Hcontinuous].
      apply derivable_continuous_pt, derivable_pt_mult; [apply derivable_pt_const|apply derivable_pt_id].
  - split.
    + apply Rle_trans with (1 := Rmin_l _ _); unfold f; specialize (HB (- b)); lra.
    + apply Rle_trans with (2 := Rmax_r _ _); unfold f; specialize (HB b); lra.
  - now exists y.
Qed.
